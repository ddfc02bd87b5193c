"""The base of the training modules: the losses of the log are metrics that Lightning's callbacks can monitor."""

import csv
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

import ldbench
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.pipeline import generator_training, tokenizer_training
from ldbench.pipeline.generator_plan import plan_generator
from ldbench.pipeline.tokenizer_plan import plan_tokenizer

COUNTERS = {"train/lr", "train/grad_norm", "train/images_seen", "train/batch"}
MONITOR = f"{__name__}.Monitor"


class Monitor(L.Callback):
    """Collects the metrics that callbacks see after each batch, and those of the last."""

    rows: ClassVar[list[dict[str, torch.Tensor]]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.rows.append(dict(trainer.callback_metrics))


class StopAtStep(EarlyStopping):
    """Lightning's early stopping, checked after each batch rather than at the end of the only epoch."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self.monitor in trainer.callback_metrics:
            self._run_early_stopping_check(trainer)


@pytest.fixture(autouse=True)
def rows() -> list[dict[str, torch.Tensor]]:
    """What the callback of one training sees."""
    Monitor.rows.clear()
    return Monitor.rows


def log_of(run: Path) -> list[dict[str, str]]:
    """The rows of the newest CSV log of a run."""
    with max(run.glob("log/version_*/metrics.csv")).open() as file:
        return list(csv.DictReader(file))


def losses_of(row: dict[str, str]) -> dict[str, float]:
    """The losses in a row of the log."""
    return {
        name: float(value)
        for name, value in row.items()
        if name.startswith("train/") and value and name not in COUNTERS
    }


def generator_plan(root: Path, *overrides: str) -> Any:
    """The plan of a tiny generator on random latents."""
    small = ["generator=sit", "generator.max_steps=6", "generator.batch_size=8", "generator.backbone.width=24"]
    small += ["generator.backbone.depth=1", "generator.backbone.num_heads=2", "trainer.accelerator=cpu"]
    small += ["~callbacks.samples", "trainer.log_every=2", f"paths.root={root}"]
    z = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0))
    latents = TensorLatents(z, torch.arange(50) % 5, latent=LatentSpec(4, 3, (2, 2)), num_classes=5)
    return plan_generator(ldbench.compose("train", [*small, *overrides]), latents)


@pytest.mark.trains
def test_the_losses_of_a_tokenizer_in_the_log_can_be_monitored(small, rows) -> None:
    planned = plan_tokenizer(small(f"+callbacks.monitor._target_={MONITOR}", "trainer.log_every=2"))
    tokenizer_training.train_stages(planned)
    last = losses_of(log_of(planned.run_folder)[-1])
    assert {"train/loss", "train/psnr", "train/pixels"} <= last.keys()
    assert {name: value.item() for name, value in rows[-1].items()} == pytest.approx(last, rel=1e-6)


@pytest.mark.trains
def test_the_losses_of_a_generator_in_the_log_can_be_monitored(tmp_path: Path, rows) -> None:
    planned = generator_plan(tmp_path, f"+callbacks.monitor._target_={MONITOR}")
    generator_training.fit_generator(planned, None)
    logged = [losses_of(row) for row in log_of(planned.run_folder)]
    assert logged[-1].keys() >= {"train/loss", "train/velocity"}
    seen = [{name: value.item() for name, value in row.items()} for row in rows]
    steps = [0, 1, 1, 2, 2, 3]  # the row of the log that is the newest at each step: rows are of steps 1, 2, 4 and 6
    assert seen == [pytest.approx(logged[step], rel=1e-6) for step in steps]
    assert all(value.device.type == "cpu" for value in rows[-1].values())


@pytest.mark.trains
def test_early_stopping_on_a_loss_stops_a_training(tmp_path: Path) -> None:
    stop = [f"+callbacks.stop._target_={__name__}.StopAtStep", "+callbacks.stop.monitor=train/loss"]
    planned = generator_plan(tmp_path, *stop, "+callbacks.stop.stopping_threshold=1e9")
    assert generator_training.fit_generator(planned, None).steps == 1


@pytest.mark.trains
def test_a_checkpoint_callback_keeps_the_best_by_a_loss(tmp_path: Path) -> None:
    keep = [
        "+callbacks.best._target_=lightning.pytorch.callbacks.ModelCheckpoint",
        "+callbacks.best.monitor=train/loss",
    ]
    keep += ["+callbacks.best.every_n_train_steps=2", f"+callbacks.best.dirpath={tmp_path / 'best'}"]
    planned = generator_plan(tmp_path, *keep)
    generator_training.fit_generator(planned, None)
    (best,) = (tmp_path / "best").glob("*.ckpt")
    step = torch.load(best, weights_only=True)["global_step"]
    by_step = {int(row["step"]): losses_of(row)["train/loss"] for row in log_of(planned.run_folder)}
    assert step == min((2, 4, 6), key=by_step.__getitem__)
