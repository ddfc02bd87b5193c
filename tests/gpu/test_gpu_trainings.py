"""Trainings on a GPU: a command ends in the same bits, interrupted or not, and every precision converges."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.shared_trainings import GENERATOR, GENERATORS, TOKENIZERS, latents
from torch import nn

import ldbench
from ldbench.pipeline import generator_training, tokenizer_training
from ldbench.pipeline.generator_plan import plan_generator
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.results.figures import read_logs
from ldbench.training.callbacks import Checkpoint
from ldbench.training.optimizer import AdamW

CASES = [*TOKENIZERS, *GENERATORS]
ON = ["trainer.accelerator=cuda", "trainer.log_every=1", "callbacks.checkpoint.every=2", "protocol=default"]
# share of float32's first loss by which others may miss it: some draw otherwise
APART = {"tf32": 0.01, "bf16": 0.1, "fp16": 0.1, "compiled": 0.1}


def trained(name: str, root: Path, *words: str) -> tuple[Any, nn.Module]:
    """The plan of a case, and what its training ended in."""
    if name in TOKENIZERS:
        planned: Any = plan_tokenizer(ldbench.compose("train", [*TOKENIZERS[name], *ON, f"paths.root={root}", *words]))
        return planned, tokenizer_training.train_stages(planned)
    cfg = ldbench.compose("train", [*GENERATORS[name], *GENERATOR, *ON, f"paths.root={root}", *words])
    planned = plan_generator(cfg, latents())
    return planned, generator_training.train_generator(planned)


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


def losses(planned: Any) -> list[float]:
    """Of every step that was logged."""
    return list(read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))["train/loss"].values())


@pytest.mark.parametrize("name", CASES)
def test_a_training_broken_off_ends_in_the_bits_of_an_unbroken_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, unbroken = trained(name, tmp_path / "unbroken")
    keep = Checkpoint.on_train_batch_end

    def break_off(self: Checkpoint, trainer: Any, task: Any, *args: Any) -> None:
        keep(self, trainer, task, *args)
        if task.steps == 3:
            raise RuntimeError("the power is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", break_off)
        with pytest.raises(RuntimeError, match="the power is gone"):
            trained(name, tmp_path / "broken")
    planned, resumed = trained(name, tmp_path / "broken")
    assert len(list(planned.run_folder.glob("log/version_*"))) == 2
    assert same(unbroken, resumed)


@pytest.mark.parametrize("how", APART)
@pytest.mark.parametrize("name", CASES)
def test_every_way_of_computing_trains_and_begins_at_the_loss_of_float32(name: str, how: str, tmp_path: Path) -> None:
    words = ["trainer.compile=true"] if how == "compiled" else [f"trainer.precision={how}"]
    whole, _ = trained(name, tmp_path / "fp32")
    planned, ended = trained(name, tmp_path / how, *words)
    assert all(torch.isfinite(value).all() for value in ended.state_dict().values())
    assert all(value.dtype in (torch.float32, torch.int64, torch.bool) for value in ended.state_dict().values())
    print(f"{name} {how}: {losses(whole)} {losses(planned)}")
    assert losses(planned)[0] == pytest.approx(losses(whole)[0], rel=APART[how])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_a_step_is_one_kernel_unless_gradients_are_scaled_until_they_are_clipped(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused, build = [], AdamW.build

    def spied(self: AdamW, *args: Any, **how: Any) -> torch.optim.Optimizer:
        optimizer = build(self, *args, **how)
        fused.append(bool(optimizer.param_groups[0]["fused"]))
        return optimizer

    monkeypatch.setattr(AdamW, "build", spied)
    trained("vavae", tmp_path, f"trainer.precision={precision}", "trainer.limit_steps=1")
    assert fused == [precision != "fp16"] * 2, "the tokenizer's and the discriminator's"


def test_latents_that_are_held_on_the_device_train_the_same_weights(tmp_path: Path) -> None:
    _, read = trained("sit", tmp_path / "read")
    _, held = trained("sit", tmp_path / "held", "trainer.resident=true")
    assert same(read, held)


def test_the_devices_numbers_are_near_a_cpus_where_nothing_is_drawn(tmp_path: Path) -> None:
    plain = [
        "tokenizer.stages.pretrain.mask_ratio=0",
        "tokenizer.stages.pretrain.latent=mean",
        "tokenizer.stages.tune.mask_ratio=0",
    ]
    there, _ = trained("vmae", tmp_path / "there", *plain)
    here, _ = trained("vmae", tmp_path / "here", *plain, "trainer.accelerator=cpu")
    assert losses(there) == pytest.approx(losses(here), rel=1e-3)
