"""The adversarial term: objectives in closed form, directions of the gradients, and the state dict."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ldbench
from ldbench.config.components import instantiate
from ldbench.core.interfaces import Balanced, LossTerm, is_adversary
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction
from ldbench.losses.adversary import Adversarial, hinge, lecam, linear, logistic, non_saturating
from ldbench.losses.discriminators import PatchGAN

Y = torch.zeros(4, dtype=torch.long)
PLAIN = {
    "weight": 0.5,
    "start": 100,
    "warmup": 10,
    "objective": "hinge",
    "generator_objective": "linear",
    "balancing": "decoder",
    "largest_balance": 1e4,
    "discriminator_weight": 1.0,
    "lecam_weight": 0.0,
    "lecam_decay": 0.9,
    "consistency_weight": 0.0,
    "consistency_cutout": 0.5,
    "augment_probability": 0.0,
    "augment_cutout": 0.2,
}


class MeanLevel(nn.Module):
    """A discriminator whose logit is a multiple of the image's mean; it counts its calls."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.inputs = []

    def forward(self, images):
        self.inputs.append(images)
        return self.scale * images.mean(dim=(1, 2, 3))


@pytest.fixture
def images():
    return torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def recon_of(images) -> Reconstruction:
    return Reconstruction(images=images, z=torch.zeros(4, 1, 1), posterior=Posterior(torch.zeros(4, 1, 1)))


def term_of(discriminator=None, **changes) -> Adversarial:
    return Adversarial(discriminator=MeanLevel() if discriminator is None else discriminator, **{**PLAIN, **changes})


def level(value: float):
    return torch.full((4, 3, 16, 16), value)


REAL, FAKE = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])


def test_hinge_counts_what_is_within_the_margin():
    assert hinge(REAL, FAKE).item() == pytest.approx(0.5 * ((0 + 1) / 2 + (0 + 2) / 2))


def test_logistic_is_half_the_cross_entropy_with_images_as_ones():
    real, fake = (
        F.binary_cross_entropy_with_logits(logits, torch.full((2,), one)) for logits, one in ((REAL, 1.0), (FAKE, 0.0))
    )
    assert logistic(REAL, FAKE).item() == pytest.approx(0.5 * (real + fake).item())
    assert logistic(torch.zeros(2), torch.zeros(2)).item() == pytest.approx(math.log(2))


def test_generator_objectives_label_reconstructions_as_images():
    assert linear(FAKE).item() == 1
    assert non_saturating(FAKE).item() == pytest.approx((math.log1p(math.exp(3)) + math.log1p(math.exp(-1))) / 2)
    assert non_saturating(FAKE).item() == pytest.approx(F.binary_cross_entropy_with_logits(FAKE, torch.ones(2)).item())


@pytest.mark.parametrize("objective", [linear, non_saturating])
def test_a_generators_gradient_raises_logits_of_reconstructions(objective):
    fake = torch.linspace(-4, 4, 9, requires_grad=True)
    objective(fake).backward()
    assert (fake.grad < 0).all()


def test_non_saturating_pushes_hardest_where_the_discriminator_is_confident():
    fake = torch.tensor([-8.0, 0.0, 8.0], requires_grad=True)
    non_saturating(fake).backward()
    assert torch.allclose(-3 * fake.grad, torch.sigmoid(torch.tensor([8.0, 0.0, -8.0])))


@pytest.mark.parametrize("objective", [hinge, logistic])
def test_a_discriminators_gradient_raises_images_and_lowers_reconstructions(objective):
    real, fake = torch.linspace(-0.9, 0.9, 7, requires_grad=True), torch.linspace(-0.9, 0.9, 7, requires_grad=True)
    objective(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()


def test_lecam_counts_what_is_past_the_other_kinds_average():
    value = lecam(REAL, FAKE, torch.tensor(0.5), torch.tensor(-1.0))
    assert value.item() == pytest.approx((3**2 + 1**2) / 2 + (3.5**2 + 0) / 2)


def test_the_term_implements_its_protocols():
    term = term_of()
    assert isinstance(term, LossTerm)
    assert isinstance(term, Balanced)
    assert is_adversary(term)
    assert (term.weight, term.start, term.warmup, term.balancing, term.largest_balance) == (
        0.5,
        100,
        10,
        "decoder",
        1e4,
    )


def test_the_generators_loss_is_unweighted_and_uses_reconstructions_only(images):
    term = term_of()
    assert term(images[0], recon_of(level(0.25)), Y).item() == pytest.approx(-0.25)
    assert len(term.discriminator.inputs) == 1
    saturating = term_of(generator_objective="non_saturating")
    assert saturating(images[0], recon_of(level(0.25)), Y).item() == pytest.approx(math.log1p(math.exp(-0.25)))


def test_the_discriminators_loss_is_its_own_weight_times_objective_and_lecam():
    term = term_of(discriminator_weight=0.4, lecam_weight=0.5)
    value = term.discriminate(level(0.5), recon_of(level(-0.25)))
    lecam_value = (0.5 + 0.025) ** 2 + (0.05 + 0.25) ** 2  # averages 0.05 and -0.025: a tenth of the way from 0
    assert value.item() == pytest.approx(0.4 * (0.5 * (0.5 + 0.75) + 0.5 * lecam_value))
    assert term_of(objective="logistic").discriminate(level(0.0), recon_of(level(0.0))).item() == pytest.approx(
        math.log(2)
    )


def test_lecams_averages_start_at_zero_and_are_updated_before_they_are_used():
    term = term_of(lecam_weight=1.0)
    for step in range(1, 4):
        term.discriminate(level(0.5), recon_of(level(-0.25)))
        assert term.average_real.item() == pytest.approx(0.5 * (1 - 0.9**step))
        assert term.average_fake.item() == pytest.approx(-0.25 * (1 - 0.9**step))


def test_lecams_averages_are_in_the_state_dict_so_that_a_resumed_run_continues_alike():
    term, resumed = term_of(lecam_weight=1.0), term_of(lecam_weight=1.0)
    term.discriminate(level(0.5), recon_of(level(-0.25)))
    resumed.load_state_dict(term.state_dict())
    assert term.average_real != 0
    again = [each.discriminate(level(0.75), recon_of(level(0.0))) for each in (term, resumed)]
    assert torch.equal(*again)
    assert torch.equal(term.average_fake, resumed.average_fake)


def test_without_lecam_no_average_moves():
    term = term_of()
    term.discriminate(level(0.5), recon_of(level(-0.25)))
    assert term.average_real == term.average_fake == 0


def test_consistency_is_the_squared_difference_to_the_same_images_strongly_augmented(images):
    torch.manual_seed(0)
    term = term_of(consistency_weight=4.0)
    value = term.discriminate(images[0], recon_of(images[1]))
    weak_real, weak_fake, strong_real, strong_fake = (image.mean(dim=(1, 2, 3)) for image in term.discriminator.inputs)
    difference = torch.cat([weak_real - strong_real, weak_fake - strong_fake])
    assert difference.abs().min() > 0
    assert value.item() == pytest.approx((hinge(weak_real, weak_fake) + 4 * difference.square().mean()).item())


def test_images_and_reconstructions_are_augmented_apart_and_the_generators_too(images):
    torch.manual_seed(0)
    term = term_of(augment_probability=1.0)
    term.discriminate(images[0], recon_of(images[0]))
    real, fake = term.discriminator.inputs
    assert not torch.equal(real, images[0])
    assert not torch.equal(real, fake)
    recon = images[1].clone().requires_grad_()
    term(images[0], recon_of(recon), Y).backward()
    assert not torch.equal(term.discriminator.inputs[-1], recon)
    assert recon.grad.abs().sum() > 0


@pytest.mark.parametrize("objective", ["hinge", "logistic"])
def test_a_step_of_the_discriminator_separates_images_from_reconstructions(images, objective):
    torch.manual_seed(0)
    term = term_of(PatchGAN(num_layers=1, width=8), objective=objective, lecam_weight=0.001)
    optimizer = torch.optim.SGD(term.discriminator.parameters(), lr=0.05)

    def margin() -> float:
        return (term.discriminator(images[0]).mean() - term.discriminator(0.5 * images[1]).mean()).item()

    before = margin()
    term.discriminate(images[0], recon_of(0.5 * images[1])).backward()
    optimizer.step()
    assert margin() > before


@pytest.mark.parametrize("objective", ["linear", "non_saturating"])
def test_a_step_of_the_generator_raises_the_logits_of_its_reconstruction_and_leaves_the_discriminator_alone(
    images, objective
):
    torch.manual_seed(0)
    term = term_of(PatchGAN(num_layers=1, width=8), generator_objective=objective).eval()
    term.discriminator.requires_grad_(False)
    recon = images[1].clone().requires_grad_()
    before = term.discriminator(recon).mean()
    term(images[0], recon_of(recon), Y).backward()
    after = term.discriminator(recon.detach() - 10 * recon.grad).mean()
    assert after > before
    assert all(p.grad is None for p in term.parameters())


def test_the_discriminators_step_takes_a_detached_reconstruction_only(images):
    with pytest.raises(AssertionError, match="must not reach the tokenizer"):
        term_of().discriminate(images[0], recon_of(images[1].clone().requires_grad_()))


def test_the_same_seed_gives_the_same_losses(images):
    term = term_of(PatchGAN(num_layers=1, width=8), augment_probability=0.5, consistency_weight=4.0)

    def both() -> torch.Tensor:
        torch.manual_seed(5)
        return torch.stack([term(images[0], recon_of(images[1]), Y), term.discriminate(images[0], recon_of(images[1]))])

    assert torch.equal(both(), both())


def test_half_precision_regions_are_scored_in_single(images):
    term = term_of(PatchGAN(num_layers=1, width=8), augment_probability=1.0, consistency_weight=4.0, lecam_weight=0.001)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert term(images[0], recon_of(images[1].bfloat16()), Y).dtype == torch.float32
        value = term.discriminate(images[0], recon_of(images[1].bfloat16()))
    assert value.dtype == torch.float32
    value.backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "vanilla"}, r"objective is 'vanilla'\. Choose one of hinge, logistic\."),
        ({"generator_objective": "hinge"}, r"generator_objective is 'hinge'\. Choose one of linear, non_saturating\."),
        ({"balancing": "both"}, r"Unknown balancing 'both'\. Choose one of none, encoder, decoder\."),
        ({"lecam_decay": 1.0}, r"lecam_decay must lie in \[0, 1\), got 1.0"),
        ({"lecam_weight": -1.0}, "lecam_weight must not be negative, got -1.0"),
        ({"augment_cutout": 2.0}, r"cutout must lie in \[0, 1\], got 2.0"),
    ],
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        term_of(**change)


def test_the_yaml_brings_its_discriminator_and_each_number_can_be_set(images):
    cfg = ldbench.compose(
        "train", ["+loss@tokenizer.losses.gan=adversarial", "tokenizer.losses.gan.discriminator.num_layers=1"]
    )
    term = instantiate(cfg.tokenizer.losses.gan)
    assert isinstance(term.discriminator, PatchGAN)
    recon = images[1].clone().requires_grad_()
    term(images[0], recon_of(recon), Y).backward()
    assert recon.grad.abs().sum() > 0
