"""The adversarial terms and PatchGAN against the official code's numbers."""

import pytest
import torch
from tests.parity.cases import each_case

from ldbench.losses.adversary import Adversarial, hinge, lecam, linear, logistic
from ldbench.losses.discriminators import PatchGAN

pytestmark = pytest.mark.parity


@each_case("maetok_gan_terms")
def test_maetoks_losses_and_moving_averages_are_the_official_numbers(case):
    term = Adversarial(
        weight=0.4,  # this and what follows besides the decay has no part in the numbers
        start=0,
        warmup=0,
        discriminator=torch.nn.Identity(),
        objective="hinge",
        generator_objective="linear",
        balancing="none",
        largest_balance=1e4,
        discriminator_weight=0.4,
        lecam_weight=0.001,
        lecam_decay=case.config["ema_decay"],
        consistency_weight=0.0,
        consistency_cutout=0.5,
        augment_probability=0.0,
        augment_cutout=0.2,
    )
    assert term.average_real == term.average_fake == case.config["ema_init"]
    steps = zip(case.input("logits_real"), case.input("logits_fake"), strict=True)
    for step, (real, fake) in enumerate(steps):
        term.update_averages(real, fake)
        case.check(f"ema_{step}", torch.stack([term.average_real, term.average_fake]).double())
        case.check(f"lecam_{step}", lecam(real, fake, term.average_real, term.average_fake))
        case.check(f"hinge_d_{step}", hinge(real, fake))
        case.check(f"vanilla_d_{step}", logistic(real, fake))
        case.check(f"gen_{step}", linear(fake))


@each_case("patchgan")
def test_patchgans_logits_and_statistics_are_the_official_numbers(case):
    network = PatchGAN(num_layers=case.config["layers"], width=case.config["filters"])
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == case.manifest
    network.load_state_dict({**network.state_dict(), **case.weights()})
    with torch.no_grad():
        case.check("logits_eval", network.eval()(case.input("x")))
        for name, size in case.outputs(r"logits_eval_(\d+)"):
            case.check(name, network(case.input(f"x{size}")))
        case.check("logits_train", network.train()(case.input("x")))
    case.check("running_mean_after", network.main[3].running_mean)  # the first of them: "main.3" in the case's text
    case.check("running_var_after", network.main[3].running_var)
    real, fake = case.input("logits_real"), case.input("logits_fake")
    case.check("hinge_d", hinge(real, fake))
    case.check("vanilla_d", logistic(real, fake))
    case.check("generator", linear(fake))
