"""The small generator during a training: its losses are logged, and the weights are those without it, bit for bit."""

import shutil
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from ldbench.pipeline import tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.results.figures import read_logs
from ldbench.training.callbacks_small_generator import SmallGenerator

pytestmark = pytest.mark.trains

Compose = Callable[..., DictConfig]
MEASURED = ["callbacks=small_generator", "callbacks.small_generator.every=2", "callbacks.small_generator.num_images=40"]
MEASURED += ["callbacks.small_generator.budget.steps=3", "callbacks.small_generator.budget.width=8"]
AVERAGED = "tokenizer.stages.pretrain.ema_decay=0.9"


def logged(planned) -> dict[str, dict[int, float]]:
    return read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_digest_and_weights_are_those_without_it_and_its_loss_is_in_the_log(small: Compose, tmp_path) -> None:
    plain = plan_tokenizer(small(AVERAGED, f"paths.root={tmp_path / 'plain'}"))
    measured = plan_tokenizer(small(AVERAGED, f"paths.root={tmp_path / 'measured'}", *MEASURED))
    assert plain.digest == measured.digest
    assert same(
        tokenizer_training.train_stages(plain).state_dict(), tokenizer_training.train_stages(measured).state_dict()
    )
    curves, without = logged(measured), logged(plain)
    assert sorted(curves["small_generator/heldout_loss"]) == [2, 4, 6, 10], (
        "while the encoder learns, and at the end of each stage"
    )
    assert all(0.5 < loss < 4 for loss in curves["small_generator/heldout_loss"].values())
    assert curves["train/loss"] == without["train/loss"]
    assert not [name for name in without if name.startswith("small_generator")]


@pytest.mark.slow
def test_a_broken_off_training_goes_on_to_the_same_weights(
    small: Compose, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenizer_training.train_stages(plan_tokenizer(small(f"paths.root={tmp_path / 'plain'}"))).state_dict()
    planned, measure = plan_tokenizer(small(*MEASURED)), SmallGenerator.measure

    def break_off(self, trainer, task) -> None:
        measure(self, trainer, task)
        if task.steps == 4:
            raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patched:
        patched.setattr(SmallGenerator, "measure", break_off)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            tokenizer_training.train_stages(planned)
    assert not (planned.run_folder / "stages").exists()
    assert same(tokenizer_training.train_stages(planned).state_dict(), expected)
    shutil.rmtree(planned.run_folder)
