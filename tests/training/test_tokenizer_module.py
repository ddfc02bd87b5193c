"""The training step of a tokenizer: active terms and their weights, discriminators, and the state that is kept."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ldbench.core.latent import LatentSpec
from ldbench.losses.features import Features
from ldbench.losses.terms import PixelMSE
from ldbench.tokenizers.maetok import MAETok
from ldbench.training.dry_run import dry_run
from ldbench.training.mask_schedules import Constant, TruncatedNormal
from ldbench.training.optimizer import AdamW
from ldbench.training.stage_config import Stage
from ldbench.training.tokenizer_module import TokenizerModule

RATES = {"lr": 1e-2, "min_lr": 0.0, "schedule": "constant", "warmup_steps": 0, "warmup_lr": None}
OPTIMIZER = AdamW(**RATES, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, clip_norm=None)


class Judge(nn.Module):
    """An adversarial term in its smallest form: a linear judge of pixels. Counts what is asked of it."""

    revision = 1

    def __init__(self, *, start=0, warmup=0, balancing="none", largest_balance=1e4):
        super().__init__()
        self.weight, self.start, self.warmup = 0.5, start, warmup
        self.balancing, self.largest_balance = balancing, largest_balance
        self.discriminator = nn.Linear(3 * 8 * 8, 1)
        self.asked = []

    def forward(self, images, recon, y):
        self.asked.append("tokenizer")
        return -self.discriminator(recon.images.flatten(1)).mean()

    def discriminate(self, images, recon):
        assert not recon.images.requires_grad
        assert not recon.z.requires_grad
        self.asked.append("discriminator")
        return (self.discriminator(recon.images.flatten(1)) - self.discriminator(images.flatten(1))).mean()


def stage(**changes) -> Stage:
    numbers = {
        "name": "s",
        "image_size": 8,
        "max_steps": 10,
        "batch_size": 2,
        "accumulate": 1,
        "mask_ratio": Constant(0.0),
        "latent": "mean",
    }
    numbers |= {
        "crop": "area",
        "crop_scale": None,
        "flip": 0.0,
        "encoder": "trainable",
        "decoder": "trainable",
        "ema_decay": None,
        "losses": {},
    }
    return Stage(**{**numbers, "optimizer": OPTIMIZER, **changes})


def tokenizer() -> MAETok:
    torch.manual_seed(0)
    sizes = {
        "image_size": 8,
        "patch_size": 4,
        "num_tokens": 2,
        "latent_channels": 3,
        "width": 8,
        "depth": 1,
        "num_heads": 2,
        "mlp_ratio": 2.0,
    }
    words = {
        "latent_head": "ae",
        "positions": "rope",
        "rope_theta": 10.0,
        "layer_scale": None,
        "modulation_start": "identity",
    }
    words |= {"linear_std": 0.02, "token_std": 0.02, "decoder_class_token": False, "to_pixels": "linear"}
    return MAETok(**sizes, **words, decoder_width=8, decoder_depth=1, decoder_num_heads=2)


def mse(**changes) -> PixelMSE:
    return PixelMSE(**{"weight": 1.0, "start": 0, "warmup": 0, "visible_ratio": None, **changes})


def make(terms, **changes) -> TokenizerModule:
    """A task whose Lightning half is replaced by plain torch, so that a step can be watched."""
    task = TokenizerModule(
        tokenizer=tokenizer(),
        losses=terms,
        stage=stage(**changes),
        seed=0,
        label_safe_flips=False,
        log_every=1000,
        first_step=0,
        folder=Path("unused"),
        adaptive="global",
    )
    task._trainer = SimpleNamespace(
        world_size=1,
        global_rank=0,
        scaler=None,
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
    )
    optimizers, schedulers = task.configure_optimizers()
    task.optimizers = lambda: optimizers if len(optimizers) > 1 else optimizers[0]
    task.lr_schedulers = lambda: schedulers[0]
    task.manual_backward = lambda loss: loss.backward()
    task.write_log = lambda loss, terms, recon, images: task.__dict__.update(logged={"loss": loss, **terms})
    task.grad_norms = []
    return task


IMAGES, Y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1, torch.tensor([0, 1])


def weights(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def test_nothing_of_a_term_is_computed_before_its_start_and_its_weight_then_rises():
    judge = Judge(start=2, warmup=4)
    task = make({"pixels": mse(), "gan": judge})
    before = weights(judge)
    for batch in range(2):
        task.training_step((IMAGES, Y), batch)
    assert judge.asked == []
    assert torch.equal(weights(judge), before)
    seen = []
    for batch in range(2, 8):
        seen.append(task.weight("gan"))
        task.training_step((IMAGES, Y), batch)
    assert seen == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert judge.asked == ["tokenizer", "discriminator"] * 6
    assert not torch.equal(weights(judge), before)


def test_starts_are_counted_in_batches_whatever_an_optimizer_step_takes():
    judge = Judge(start=2)
    task = make({"pixels": mse(), "gan": judge}, accumulate=2)
    for batch in range(3):
        task.training_step((IMAGES, Y), batch)
    assert task.steps == 1
    assert judge.asked == ["tokenizer", "discriminator"]


def test_the_tokenizers_pass_leaves_no_gradient_in_the_discriminator_nor_the_other_way_round():
    judge = Judge()
    task = make({"pixels": mse(), "gan": judge})
    passes = {}

    def watch(loss):
        loss.backward()
        passes[len(passes)] = (
            judge.discriminator.weight.grad is not None,
            sum(p.grad.abs().sum().item() for p in task.tokenizer.parameters() if p.grad is not None),
        )

    task.manual_backward = watch
    task.training_step((IMAGES, Y), 0)
    assert not passes[0][0]
    assert passes[1][0]
    assert passes[0][1] == passes[1][1]


def test_a_balanced_term_pulls_as_hard_at_the_anchor_as_the_reconstruction():
    task = make({"pixels": mse(), "gan": Judge(balancing="decoder")})
    terms, weighted = task.compute_losses(IMAGES, task.reconstruct(IMAGES), Y)
    recon, anchor = task.reconstruct(IMAGES), task.tokenizer.anchors()["decoder"]
    again = {name: term(IMAGES, recon, Y) for name, term in task.terms.items()}
    norms = {name: torch.autograd.grad(value, anchor, retain_graph=True)[0].norm() for name, value in again.items()}
    torch.testing.assert_close(weighted.weights["gan"] * norms["gan"], 0.5 * norms["pixels"], rtol=1e-2, atol=0)
    torch.testing.assert_close(weighted.value, terms["pixels"] + weighted.weights["gan"] * terms["gan"])
    assert not weighted.weights["gan"].requires_grad
    assert not any(p.grad is not None for p in task.discriminator_parameters)


def test_a_balance_that_cannot_be_is_told_in_the_rehearsal():
    for terms, changes, message in (
        (
            {"pixels": mse(), "gan": Judge(balancing="encoder")},
            {"encoder": "frozen"},
            "encoder's anchor, which this stage freezes",
        ),
        ({"pixels": mse(start=5), "gan": Judge(balancing="decoder")}, {}, "none of them is active from the start"),
    ):
        with pytest.raises(ValueError, match=message):
            dry_run(make(terms, **changes), IMAGES, Y)


def test_a_rehearsal_runs_what_starts_late():
    judge = Judge(start=10_000)
    dry_run(make({"pixels": mse(), "gan": judge}), IMAGES, Y)
    assert judge.asked == ["tokenizer", "discriminator"]


class Frozen(nn.Module):
    """A teacher with weights."""

    revision = 1

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 5)
        self.requires_grad_(False)

    def channels(self, image_size, grid):
        return 5

    def forward(self, images, grid):
        with torch.no_grad():
            return self.net(images.unfold(2, 4, 4).unfold(3, 4, 4).mean(dim=(-1, -2)).flatten(2).transpose(1, 2))


def features(teacher) -> Features:
    return Features(
        weight=1.0,
        start=0,
        warmup=0,
        teacher=teacher,
        tokens="all",
        distance="mse",
        width=8,
        depth=1,
        num_heads=2,
        modulation_start="zero",
        linear_std=0.02,
        token_std=0.02,
        latent=LatentSpec(2, 3),
        patch_grid=(2, 2),
        image_size=8,
    )


def test_a_teacher_is_shared_stays_as_it_is_and_is_in_no_checkpoint():
    teacher = Frozen()
    task = make({"pixels": mse(), "one": features(teacher), "two": features(teacher)})
    before = weights(teacher)
    task.training_step((IMAGES, Y), 0)
    assert torch.equal(weights(teacher), before)
    kept = task.state_dict()
    assert any(key.startswith("losses.one.decoder.") for key in kept)
    assert not any(".teacher." in key for key in kept)
    task.load_state_dict(kept)


def test_what_terms_learned_goes_on_where_they_are_the_same_and_begins_afresh_elsewhere():
    first = make({"pixels": mse(), "gan": Judge(), "feat": features(Frozen())})
    for batch in range(2):
        first.training_step((IMAGES, Y), batch)
    learned = first.learned_terms()
    torch.manual_seed(9)
    same, other = Judge(), features(Frozen())
    other.head = nn.Linear(8, 6)
    fresh = weights(other.decoder)
    task = make({"gan": same, "feat": other, "pixels": mse()})
    task.load_learned_terms(learned)
    assert torch.equal(weights(same), weights(first.terms["gan"]))
    assert torch.equal(weights(other.decoder), fresh)


def test_a_ratio_is_drawn_from_the_seed_of_its_batch():
    law = TruncatedNormal(low=0.2, high=0.8, mean=0.8, std=0.25, per="image")

    def masks(seed):
        task = make({"pixels": mse()}, mask_ratio=law)
        torch.manual_seed(seed)
        return task.reconstruct(IMAGES).mask

    assert torch.equal(masks(1), masks(1))
    assert any(not torch.equal(masks(1), masks(seed)) for seed in range(2, 6))


class Scaled:
    """An optimizer that steps as Lightning's do under float16; keeps the gradients that it steps with."""

    def __init__(self, optimizer, scaler):
        self.optimizer, self.scaler, self.param_groups, self.seen = optimizer, scaler, optimizer.param_groups, []
        self.zero_grad = optimizer.zero_grad

    def step(self):
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        grads = [p.grad.flatten().clone() for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.seen.append(torch.cat(grads))
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


def test_two_optimizers_unscale_by_the_scale_of_their_losses():
    seen = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)):
        torch.manual_seed(5)
        task = make({"pixels": mse(), "gan": Judge()})
        optimizers = [Scaled(optimizer, scaler) for optimizer in task.optimizers()]
        task.optimizers = lambda optimizers=optimizers: optimizers
        task._trainer.scaler = scaler
        if scaler is not None:
            task.manual_backward = lambda loss, scaler=scaler: scaler.scale(loss).backward()
        for batch in range(3):
            task.training_step((IMAGES, Y), batch)
        seen.append([optimizer.seen for optimizer in optimizers])
    assert scaler.get_scale() == 8.0 * 2**3, "it is updated once a step"
    for plain, scaled in zip(*seen, strict=True):
        for expected, found in zip(plain, scaled, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
