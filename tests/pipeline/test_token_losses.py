"""Losses on a generator's inner tokens: they train, are exact to resume, leave no trace in the artifact, and fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.pipeline.generator_trainings import SMALL, latents, same
from torch import Tensor

import ldbench
from ldbench.core.latent import LatentSpec
from ldbench.pipeline import generator_training, get_generator
from ldbench.pipeline.generator_plan import GeneratorPlan, plan_generator, validate_cell
from ldbench.results.figures import read_logs
from ldbench.training.callbacks import Checkpoint

pytestmark = pytest.mark.trains

REPA = (
    "+generator_loss@generator.losses.repa=repa",
    "teacher@generator.losses.repa.teacher=hog",
    "generator.losses.repa.block=1",
    "generator.losses.repa.projector_width=8",
)


class Images:
    """As many images as there are latents."""

    def __init__(self) -> None:
        self.images = torch.rand(50, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], 0


@pytest.fixture
def plan_with(tmp_path: Path) -> Callable[..., GeneratorPlan]:
    """Plans a tiny SiT on latents of images."""

    def make(*overrides: str, root: str = ".") -> GeneratorPlan:
        words = [*SMALL, f"paths.root={tmp_path / root}", *overrides]
        return plan_generator(ldbench.compose("train", words), latents(), images=Images())

    return make


@pytest.mark.parametrize("loss", ["repa", "irepa"])
def test_it_changes_the_weights_is_logged_and_leaves_no_trace_in_the_artifact(plan_with, loss) -> None:
    words = (REPA[0].replace("=repa", f"={loss}"), *REPA[1:], "trainer.log_every=1")
    planned = plan_with(*words)
    aligned = ldbench.load(get_generator.train_plan(planned).folder)
    plain = generator_training.train_generator(plan_with(root="plain"))
    assert planned.digest != plan_with().digest
    assert aligned.state_dict().keys() == plain.state_dict().keys()
    assert not same(aligned, plain)
    logged = read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))["train/repa"]
    assert logged[12] < logged[1], "the projector learns"


def test_of_weight_zero_nothing_is_built_and_no_bit_changes(plan_with) -> None:
    off = plan_with(*REPA, "generator.losses.repa.weight=0")
    plain = plan_with(root="plain")
    assert off.digest == plain.digest
    assert same(generator_training.train_generator(off), generator_training.train_generator(plain))


def test_a_run_broken_off_in_the_middle_ends_in_the_weights_of_an_unbroken_one(plan_with, monkeypatch) -> None:
    unbroken = generator_training.train_generator(plan_with(*REPA, root="unbroken"))
    planned = plan_with(*REPA)
    saved = Checkpoint.on_train_batch_end

    def save_and_stop(self, trainer, task, *rest):
        saved(self, trainer, task, *rest)
        if task.steps == 7:
            raise RuntimeError("the power is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", save_and_stop)
        with pytest.raises(RuntimeError, match="the power is gone"):
            generator_training.train_generator(planned)
    assert same(generator_training.train_generator(planned), unbroken)
    content = torch.load(planned.run_folder / "checkpoints" / "generator.ckpt", weights_only=True)["state_dict"]
    held = {key for key in content if key.startswith("losses.")}
    assert held
    assert all(".projector." in key for key in held)


def test_latents_that_are_held_on_the_device_train_the_same_weights(plan_with) -> None:
    read = generator_training.train_generator(plan_with(*REPA))
    assert same(read, generator_training.train_generator(plan_with(*REPA, "trainer.resident=true", root="held")))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["trainer.compile=true", "generator.backbone.checkpointing=true"])
def test_compiled_or_recomputed_it_trains_to_the_same_up_to_rounding(plan_with, how) -> None:
    plain = generator_training.train_generator(plan_with(*REPA)).state_dict()
    other = generator_training.train_generator(plan_with(*REPA, how, root="other")).state_dict()
    for key, value in plain.items():
        torch.testing.assert_close(other[key], value, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(
    ("words", "latent", "message"),
    [
        (["generator.losses.repa.block=2"], (4, 4), r"losses\.repa: block must be 1 to 1 for this DiT, got 2"),
        ([], None, r"losses\.repa: .*these latents have no grid. Choose a tokenizer whose latents are a map"),
        (["generator.losses.repa.projector=deep"], (4, 4), r"Choose one of mlp, conv, linear|one of mlp, conv, linear"),
        (["+generator.losses.repa.image_size=8"], (4, 4), "a loss is told it by the backbone and data"),
        (["generator.losses.repa.weight=-1"], (4, 4), "weight must be above zero, got -1"),
        (["latents.cache=some"], (4, 4), "does not say of which images its latents are"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(words, latent, message) -> None:
    cfg = ldbench.compose("train", [*SMALL, *REPA, *words])
    with pytest.raises(ValueError, match=message):
        validate_cell(cfg, LatentSpec(16, 3, latent), 5)
