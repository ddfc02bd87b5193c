"""Noise on latents, masked tokens and equivariance in trainings: what they change, and what they leave alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file
from tests.pipeline.trainings import same, trained

import ldbench
from ldbench.pipeline import tokenizer_training
from ldbench.pipeline.teachers import Teachers
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.training.callbacks import Checkpoint

pytestmark = pytest.mark.trains

Compose = Callable[..., DictConfig]
STAGES = ("pretrain", "tune")
CORRUPTED = tuple(
    f"tokenizer.stages.{stage}.{setting}"
    for stage in STAGES
    for setting in ("latent_noise.strength=0.5", "token_mask.largest=0.7", "token_mask.least=0.3")
)
AT_REST = tuple(
    f"tokenizer.stages.{stage}.{setting}"
    for stage in STAGES
    for setting in ("latent_noise.kind=interpolative", "latent_noise.scale=3", "token_mask.least=0")
)
ROTATED = (
    "tokenizer.stages.tune.equivariance.probability=0.5",
    "tokenizer.stages.tune.equivariance.scales=[1,1]",
    "tokenizer.stages.tune.equivariance.downscaled=0",
)


def weights(cfg: DictConfig) -> dict[str, torch.Tensor]:
    return trained(cfg)[1]


def test_at_zero_strength_neither_digest_nor_bit_changes(
    small: Compose, already: Callable[..., Path], tmp_path: Path
) -> None:
    already()
    assert plan_tokenizer(small(*AT_REST)).digest == plan_tokenizer(small()).digest
    assert same(weights(small(*AT_REST, f"paths.root={tmp_path / 'at_rest'}")), weights(small()))


def test_strengths_are_in_the_digest_and_the_vector_goes_on_in_the_next_stage(small: Compose) -> None:
    planned = plan_tokenizer(small(*CORRUPTED))
    assert planned.digest != plan_tokenizer(small()).digest
    assert planned.recipe["stages"][0]["latent_noise"]["strength"] == 0.5
    tokenizer = tokenizer_training.train_stages(planned)
    first, second = (
        load_file(planned.run_folder / "stages" / f"{stage}.losses.safetensors")["corruption.vector"]
        for stage in STAGES
    )
    assert first.abs().max() > 0
    assert not torch.equal(first, second)
    assert (first - second).abs().max() < first.abs().max() * 3  # not begun afresh
    assert not any("vector" in key for key in tokenizer.state_dict()), "it is of the training alone"


@pytest.mark.parametrize("settings", [CORRUPTED, pytest.param(ROTATED, marks=pytest.mark.slow)])
def test_a_run_broken_off_ends_in_the_weights_of_an_unbroken_one(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    expected = weights(small(*settings, f"paths.root={tmp_path / 'unbroken'}"))
    saved = Checkpoint.on_train_batch_end

    def save_and_stop(self: Checkpoint, trainer, task, *rest) -> None:
        saved(self, trainer, task, *rest)
        if task.stage.name == "tune" and task.steps == 3:
            raise RuntimeError("the power is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", save_and_stop)
        with pytest.raises(RuntimeError, match="the power is gone"):
            weights(small(*settings))
    assert same(weights(small(*settings)), expected)


def test_every_loss_sees_the_rotated_pair(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that turns latents with their images makes the same error for each pair."""
    planned = plan_tokenizer(small(*ROTATED, "tokenizer.stages.tune.equivariance.probability=1"))
    tokenizer = tokenizer_training.init_tokenizer(planned)
    stage = planned.stages[-1]
    tokenizer.resize(stage.image_size)
    module = tokenizer_training.build_module(planned, tokenizer, stage, Teachers(planned.cfg, planned.registry))
    images = torch.rand(2, 3, stage.image_size, stage.image_size) * 2 - 1
    torch.manual_seed(0)
    target, recon = module.training_pass(images)
    turns = [k for k in (1, 2, 3) if torch.equal(target, images.rot90(k, (2, 3)))]
    assert len(turns) == 1
    spec = tokenizer.latent
    turned = spec.to_map(tokenizer.encode(images).mean).rot90(turns[0], (2, 3))
    assert torch.equal(recon.z, spec.from_map(turned))
    assert torch.equal(recon.images, tokenizer.decode(recon.z))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["equivariance.probability=0.5", "mask_ratio=0.5"], "transforms whole latents"),
        (["equivariance.probability=0.5"], r"decodes latents .* on a \(4, 4\) grid.*scales=\[1,1\]"),
        (["latent_noise.strengt=0.5"], "latent_noise.strengt"),
        (["latent_noise.strength=-1"], "latent_noise.strength must be at least 0"),
        (["token_mask.largest=1"], r"token_mask.largest must lie in \[0, 1\)"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(small: Compose, overrides: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tokenizer_training.dry_run(
            plan_tokenizer(small(*(f"{'++' if 'strengt=' in o else ''}tokenizer.stages.tune.{o}" for o in overrides)))
        )


def test_a_term_of_one_size_refuses_other_scales_by_name(small: Compose) -> None:
    overrides = ["tokenizer=vavae", "+loss@tokenizer.losses.hog=hog", "teacher@tokenizer.losses.hog.teacher=hog4"]
    overrides += ["~tokenizer.losses.alignment", "tokenizer.stages.train.equivariance.probability=0.5"]
    planned = plan_tokenizer(ldbench.compose("train", [*overrides, "trainer.accelerator=cpu"]))
    with pytest.raises(ValueError, match=r"loss hog does not take 1 x 1 positions.*scales=\[1,1\]"):
        tokenizer_training.dry_run(planned)
