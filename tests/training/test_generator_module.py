"""The training step of a generator: its loss, its weight averages, and the replay of a loss that is not finite."""

from types import SimpleNamespace

import pytest
import torch

from ldbench.backbones.dit import DiT
from ldbench.core.generator import Generator
from ldbench.core.interpolants import Linear
from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.times import Uniform
from ldbench.training.generator_config import GeneratorTrainingConfig
from ldbench.training.generator_module import GeneratorModule
from ldbench.training.optimizer import AdamW

LATENT = LatentSpec(4, 2, (2, 2))
RATES = {"lr": 1e-2, "min_lr": 0.0, "schedule": "constant", "warmup_steps": 0, "warmup_lr": None}
FLOW = {
    "prediction": "velocity",
    "weighting": "none",
    "cosine_weight": 1.0,
    "network_time": "data_at_one",
    "margin": 1e-3,
}
SIZES = {
    "patch_size": 1,
    "width": 12,
    "depth": 1,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "qk_norm": False,
    "class_std": 0.5,
    "checkpointing": False,
}
Z, Y = 2 + torch.randn(8, 4, 2, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3


def build_module(tmp_path, *, clip_norm=None, **changes) -> GeneratorModule:
    """A task whose Lightning half is replaced by plain torch, so that a step can be watched."""
    torch.manual_seed(0)
    backbone = DiT(latent=LATENT, num_classes=3, has_null_class=True, learned_variance=False, **SIZES)
    generator = Generator(
        backbone=backbone,
        objective=FlowMatching(interpolant=Linear(), times=Uniform(), **FLOW),
        normaliser=Normalizer(2),
        class_dropout=0.1,
    )
    optimizer = AdamW(**RATES, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, clip_norm=clip_norm)
    numbers = {"max_steps": 20, "batch_size": 8, "accumulate": 1, "ema_decays": [0.5, 0.9], "exported_decay": 0.5}
    task = GeneratorModule(
        generator=generator,
        course=GeneratorTrainingConfig(**{**numbers, **changes}, optimizer=optimizer),
        seed=3,
        log_every=1,
        folder=tmp_path,
    )
    task._trainer = SimpleNamespace(scaler=None)
    (made_optimizer,), (scheduler,) = task.configure_optimizers()

    def before_step(optimizer, *_):
        task.on_before_optimizer_step(optimizer)
        task.stepped_by = torch.stack([p.grad.norm() for p in task.generator.parameters()]).norm()

    made_optimizer.register_step_pre_hook(before_step)
    task.optimizers, task.lr_schedulers = lambda: made_optimizer, lambda: scheduler
    task.manual_backward = lambda loss: loss.backward()
    strategy = SimpleNamespace(
        reduce_boolean_decision=lambda decision, all: decision, reduce=lambda value, reduce_op: value
    )
    task._trainer = SimpleNamespace(world_size=2, global_rank=0, strategy=strategy, loggers=[])
    task.logged = []
    task.log_values = lambda values: task.logged.append(
        {**values, "lr": task.lr, "grad_norm": float(task.grad_norms[0])}
    )
    return task


def weights(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def test_its_loss_is_the_mean_of_the_sum_of_the_terms_and_falls(tmp_path):
    task = build_module(tmp_path)
    fixed = {"step": 0, "t": torch.linspace(0.1, 0.9, 8), "noise": Z.flip(0) - 2, "dropped": Y < 0}
    before = task.generator.loss(Z, Y, **fixed)["velocity"].mean()
    for i in range(20):
        task.training_step((Z, Y), i)
    first = task.logged[0]
    assert set(first) == {"loss", "velocity", "cosine", "lr", "grad_norm"}
    assert first["loss"] == pytest.approx(first["velocity"] + first["cosine"], rel=1e-6)
    assert task.generator.loss(Z, Y, **fixed)["velocity"].mean() < before
    assert (task.steps, task.batches, task.images_seen) == (20, 20, 20 * 8 * 2)


class Half:
    """A loss on tokens that is one half."""

    weight, block = 1.0, 1

    def __call__(self, tokens, images):
        return 0.0 * tokens.sum(dim=(1, 2)) + 0.5


def test_a_loss_named_like_a_term_of_the_objective_is_added_to_it(tmp_path):
    task = build_module(tmp_path)
    task.terms = {"cosine": Half()}
    task.train_batch(Z, Y)
    found = task.logged[0]
    assert float(found["losses.cosine"]) == 0.5
    assert float(found["loss"]) == pytest.approx(float(found["velocity"] + found["cosine"]) + 0.5, rel=1e-6)


def test_averages_follow_the_weights_by_their_decays_and_any_of_them_is_a_generator(tmp_path):
    task = build_module(tmp_path)
    expected = {}
    for i in range(4):
        task.training_step((Z, Y), i)
        now = weights(task.generator.backbone)
        expected = {decay: now if i == 0 else decay * expected[decay] + (1 - decay) * now for decay in (0.5, 0.9)}
    for decay in (0.5, 0.9):
        torch.testing.assert_close(weights(task.averaged(decay).backbone), expected[decay], rtol=1e-5, atol=1e-6)
    assert task.averaged(None) is task.generator
    assert torch.equal(weights(task.exported().backbone), weights(task.averaged(0.5).backbone))
    assert task.exported().normaliser is task.generator.normaliser
    assert not any(p.requires_grad for p in task.averages.parameters())
    with pytest.raises(ValueError, match=r"There is no average with the decay 0\.3\. Choose one of \[0\.5, 0\.9\]"):
        task.averaged(0.3)


def test_draws_are_told_by_seed_and_batch_alone(tmp_path):
    first, second = build_module(tmp_path), build_module(tmp_path)
    first.training_step((Z, Y), 0)
    torch.manual_seed(99)
    second.training_step((Z, Y), 0)
    assert torch.equal(weights(first.generator), weights(second.generator))
    second.batches = 0  # the same batch under the same number draws the same
    assert first.step_seed(0) != first.step_seed(1)


def test_gradients_are_clipped_and_accumulated(tmp_path):
    clipped, halves, whole = (
        build_module(tmp_path, clip_norm=1e-3),
        build_module(tmp_path, accumulate=2),
        build_module(tmp_path),
    )
    clipped.training_step((Z, Y), 0)
    assert clipped.logged[0]["grad_norm"] > 0.1, "the log holds the norm before clipping"
    assert float(clipped.stepped_by) == pytest.approx(1e-3, rel=1e-3)
    whole.training_step((Z, Y), 0)
    assert whole.logged[0]["grad_norm"] == clipped.logged[0]["grad_norm"] == float(whole.stepped_by), (
        "logged without a limit too, and not clipped"
    )
    halves.training_step((Z, Y), 0)
    assert halves.steps == 0
    assert torch.equal(weights(halves.generator), weights(build_module(tmp_path).generator)), "no step yet"
    halves.training_step((Z, Y), 1)
    assert halves.steps == 1
    assert not torch.equal(weights(halves.generator), weights(whole.generator))


def test_a_loss_that_is_not_finite_stops_and_leaves_a_replay(tmp_path):
    task = build_module(tmp_path)
    task.training_step((Z, Y), 0)
    with pytest.raises(
        FloatingPointError, match=r"loss of stage generator is not finite at batch 1 \(velocity nan.*replay"
    ):
        task.training_step((Z * torch.inf, Y), 1)
    replay = torch.load(tmp_path / "nonfinite-generator-1-0.pt", weights_only=True)
    again = build_module(tmp_path)
    again.generator.load_state_dict(replay["generator"])
    torch.manual_seed(replay["seed"])
    assert not torch.isfinite(again.generator.loss(replay["z"], replay["y"], step=1)["velocity"]).all()
