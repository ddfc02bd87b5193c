"""Alignment in training: stages hand on what it learned, also frozen; a projection that looks on changes nothing; off
and on in one command.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

import ldbench
from ldbench.config.compose import Registry
from ldbench.pipeline import tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.results.figures import read_logs
from ldbench.training.callbacks import Checkpoint

pytestmark = pytest.mark.trains

SMALL = [
    "tokenizer=vavae",
    "tokenizer.model.widths=[8,8,8,16]",
    "trainer.accelerator=cpu",
    "data.subset=0.1",
    "trainer.log_every=1",
]
SMALL += ["teacher@tokenizer.losses.alignment.teacher=hog4", "protocol=default"]
NUMBERS = {"max_steps": 4, "batch_size": 8}
THREE = [f"tokenizer.stages.train.{key}={value}" for key, value in NUMBERS.items()]
for name in ("settle", "margins"):
    THREE += [
        f"+stage@tokenizer.stages.{name}=default",
        *(f"tokenizer.stages.{name}.{key}={value}" for key, value in NUMBERS.items()),
    ]
THREE += [
    "+tokenizer.stages.margins.losses.alignment.projection_frozen=true",
    "+tokenizer.stages.settle.losses.alignment.cosine_margin=0.1",
]
OPPOSED = [
    "+loss@tokenizer.losses.gan=adversarial",
    "tokenizer.losses.gan.discriminator.num_layers=1",
    "tokenizer.losses.gan.discriminator.width=4",
]

Compose = Callable[..., DictConfig]


@pytest.fixture
def small(tmp_path: Path) -> Compose:
    """Composes the config of a tiny VA-VAE under a root of its own."""
    return lambda *overrides: ldbench.compose("train", [*SMALL, f"paths.root={tmp_path}", *overrides])


def left_by(folder: Path, stage: str) -> tuple[dict, dict]:
    """The tokenizer that a stage ended in, and what its terms had learned."""
    return load_file(folder / "stages" / f"{stage}.safetensors"), load_file(
        folder / "stages" / f"{stage}.losses.safetensors"
    )


PROJECTION = "alignment.to_teacher.weight"


@pytest.mark.slow
def test_each_stage_goes_on_from_the_one_before_projection_and_opponent_too(
    small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = {}
    make = tokenizer_training.fit_stage

    def watch(planned, task, loggers):
        begun[task.stage.name] = (
            {key: value.clone() for key, value in task.tokenizer.state_dict().items()},
            {key: value.clone() for key, value in task.learned_terms().items()},
        )
        return make(planned, task, loggers)

    monkeypatch.setattr(tokenizer_training, "fit_stage", watch)
    planned = plan_tokenizer(small(*THREE, *OPPOSED))
    tokenizer_training.train_stages(planned)
    for before, after in (("train", "settle"), ("settle", "margins")):
        for ended, started in zip(left_by(planned.run_folder, before), begun[after], strict=True):
            assert ended.keys() == started.keys()
            assert all(torch.equal(ended[key], started[key]) for key in ended)
    assert PROJECTION in begun["margins"][1]
    settled, finished = (left_by(planned.run_folder, stage) for stage in ("settle", "margins"))
    assert torch.equal(settled[1][PROJECTION], finished[1][PROJECTION]), "frozen"
    assert not torch.equal(
        settled[1]["gan.discriminator.main.0.weight"], finished[1]["gan.discriminator.main.0.weight"]
    )
    assert not torch.equal(settled[0]["encoder.conv.conv_in.weight"], finished[0]["encoder.conv.conv_in.weight"])


@pytest.mark.slow
def test_a_stage_with_a_frozen_projection_broken_off_ends_in_the_weights_of_an_unbroken_one(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenizer_training.train_stages(
        plan_tokenizer(small(*THREE, f"paths.root={tmp_path / 'whole'}"))
    ).state_dict()
    cfg = small(*THREE, "callbacks.checkpoint.every=2", f"paths.root={tmp_path / 'broken'}")
    keep = Checkpoint.on_train_batch_end

    def break_off(self, trainer, task, *args):
        keep(self, trainer, task, *args)
        if task.steps == 3 and task.stage.name == "margins":
            raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", break_off)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            tokenizer_training.train_stages(plan_tokenizer(cfg))
    again = tokenizer_training.train_stages(plan_tokenizer(cfg)).state_dict()
    assert all(torch.equal(again[key], value) for key, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vmae", "maetok", "vavae"])
def test_a_projection_that_looks_on_leaves_every_bit_of_the_training_alone(name: str, tmp_path: Path) -> None:
    words = [f"tokenizer={name}", *SMALL[2:5], "trainer=debug", "trainer.accelerator=cpu"]
    words += [
        f"tokenizer.stages.{stage}.batch_size=8"
        for stage in ldbench.compose("train", [f"tokenizer={name}"]).tokenizer.stages
    ]
    look = ["loss@tokenizer.losses.alignment=alignment", "teacher@tokenizer.losses.alignment.teacher=hog4"]
    ends = []
    for place, more in (("off", ["~tokenizer.losses.alignment"] if name == "vavae" else []), ("on", look)):
        teaches = ["tokenizer.losses.alignment.teaches=projection"] if place == "on" else []
        planned = plan_tokenizer(ldbench.compose("train", [*words, *more, *teaches, f"paths.root={tmp_path / place}"]))
        ends.append(tokenizer_training.train_stages(planned).state_dict())
    logged = read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))
    assert {"train/alignment", "heldout/alignment", "heldout/alignment_explained"} <= logged.keys()
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


@pytest.mark.slow
def test_a_latent_that_is_pulled_is_aligned_better_than_one_that_is_looked_at(small: Compose, tmp_path: Path) -> None:
    words = [
        "tokenizer.stages.train.max_steps=60",
        "tokenizer.stages.train.batch_size=16",
        "tokenizer.stages.train.optimizer.warmup_steps=0",
    ]
    found = {}
    for teaches in ("tokenizer", "projection"):
        pulled = [
            f"tokenizer.losses.alignment.teaches={teaches}",
            "tokenizer.losses.alignment.weight=1.0",
            f"paths.root={tmp_path / teaches}",
        ]
        planned = plan_tokenizer(small(*words, *pulled))
        tokenizer_training.train_stages(planned)
        (found[teaches],) = read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))[
            "heldout/alignment"
        ].values()
    assert found["tokenizer"] < 0.9 * found["projection"]


@pytest.mark.parametrize("name", sorted(name for name in Registry().options("experiments") if name.startswith("vavae")))
def test_a_recipe_of_the_paper_has_sound_stages_and_the_units_of_a_mean(name: str) -> None:
    from ldbench.pipeline.tokenizer_plan import build_stages, stage_losses

    cfg = ldbench.compose(
        "train", [f"experiments={name}", "data.root=IMAGENET", "tokenizer.losses.lpips.weights.source=LPIPS"]
    )
    values = 3 * cfg.tokenizer.image_size**2
    stages = build_stages(cfg)
    assert [stage.image_size for stage in stages] == [256] * len(stages)
    for stage in stages:
        assert stage.optimizer.eps == pytest.approx(1e-8 / values, rel=1e-3)
        terms = stage_losses(cfg, stage.losses)
        assert terms["gan"]["largest_balance"] == pytest.approx(1e4 / values, rel=1e-3)
        assert terms["kl"]["weight"] == pytest.approx(1e-6 * 256 / values, rel=1e-3)
        assert "alignment" not in terms or terms["alignment"]["largest_balance"] == pytest.approx(
            1e8 / values, rel=1e-3
        )
    assert ("alignment" in terms) == (name != "vavae_imagenet256_ldm")


@pytest.mark.slow
def test_the_ablation_is_one_command(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ldbench.train",
        "experiments=ablation_alignment",
        "trainer=debug",
        "trainer.accelerator=cpu",
    ]
    done = subprocess.run(
        [*command, f"paths.root={tmp_path}"], capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    for job in ("reconstruct", "probe"):
        assert len(list((tmp_path / "records").glob(f"{job}-*.json"))) == 6
