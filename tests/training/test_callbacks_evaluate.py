"""`ldbench.Evaluate` in a stranger's training: its weights are the same bits as without it, and figures are logged."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from tests.pipeline.strangers import Plain, seeded, tiny_images
from torch import Tensor, nn
from torch.utils.data import DataLoader

import ldbench
from ldbench.results.figures import read_logs
from ldbench.training.callbacks_evaluate import find_tokenizer

pytestmark = pytest.mark.trains

STEPS = 6


class Theirs(L.LightningModule):
    """A stranger's training, with noise of its own, dropout and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = seeded(Plain)
        self.head = nn.Linear(3, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images = batch[0] + 0.1 * torch.randn_like(batch[0])
        loss = (self.vae.decode(self.vae.encode(images)) - images).square().mean()
        self.log("loss", loss)
        return loss + 0 * self.head.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Adversarial(Theirs):
    """Two optimizers, stepped by hand: `global_step` counts both."""

    automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.AdamW(self.parameters(), lr=lr) for lr in (1e-2, 1e-3)]


def trained(
    folder: Path, *callbacks: L.Callback, module: L.LightningModule | None = None, accumulate: int = 1
) -> L.LightningModule:
    """The module after some steps of real Lightning, with a log."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = module or Theirs()
        loader = DataLoader(tiny_images(16).train, batch_size=4, shuffle=True)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=STEPS * accumulate // 4 + 1,
            max_steps=STEPS * (2 if isinstance(module, Adversarial) else 1),
            callbacks=list(callbacks),
            logger=CSVLogger(folder, name="log"),
            log_every_n_steps=1,
            accumulate_grad_batches=accumulate,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, loader)
    return module


def evaluation(tmp_path: Path, every_n_steps: int = 2, **changes: Any) -> Any:
    settings = {"data": tiny_images(), "root": tmp_path, "tokenizer": "vae", **changes}
    return ldbench.Evaluate(every_n_steps, **settings)


def test_the_weights_are_those_without_it_and_the_figures_those_of_measure(tmp_path: Path) -> None:
    smoothness = {"num_images": 4, "num_pairs": 1, "num_points": 3, "num_reference": 4, "num_jacobians": 1}
    smoothness |= {"iterations": 2, "num_probes": 1, "levels": [0.0, 0.1]}  # type: ignore[dict-item]
    callback = evaluation(tmp_path, jobs={"reconstruct": {}, "smoothness": smoothness}, every_n_steps=4)
    without, measured = trained(tmp_path / "without"), trained(tmp_path / "with", callback)
    assert all(
        torch.equal(a, b) for a, b in zip(without.state_dict().values(), measured.state_dict().values(), strict=True)
    )
    logs = {name: read_logs(sorted((tmp_path / name).glob("log/*/metrics.csv"))) for name in ("without", "with")}
    assert logs["with"]["loss"] == logs["without"]["loss"]
    assert sorted(logs["with"]["ldbench/psnr"]) == [4, STEPS]
    assert "ldbench/smoothness/decoder/lipschitz" in logs["with"]
    expected = ldbench.measure(measured.vae, data=tiny_images(), root=tmp_path)
    assert expected.items() <= callback.estimates.items()
    assert logs["with"]["ldbench/psnr"][STEPS] == pytest.approx(expected["psnr"].value)
    assert list(callback.history) == [4, STEPS]
    assert not list(tmp_path.glob("artifacts/*")), "without features nothing is kept"


class Monitor(L.Callback):
    """What other callbacks can monitor, by step."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if "ldbench/psnr" in trainer.callback_metrics:
            self.seen[trainer.global_step] = trainer.callback_metrics["ldbench/psnr"].item()


def test_other_callbacks_can_monitor_it(tmp_path: Path) -> None:
    callback, monitor = evaluation(tmp_path), Monitor()
    trained(tmp_path / "with", callback, monitor)
    assert {4, 6} <= monitor.seen.keys()
    assert monitor.seen[4] == pytest.approx(callback.history[4]["psnr"].value)


def test_steps_are_the_optimizers_whatever_the_batches_of_one(tmp_path: Path) -> None:
    callback = evaluation(tmp_path)
    trained(tmp_path / "with", callback, accumulate=2)
    assert list(callback.history) == [2, 4, 6]
    both = evaluation(tmp_path, every_n_steps=5)
    trained(tmp_path / "both", both, module=Adversarial())
    assert list(both.history) == [6, 10, 12], (
        "two steps at a time: the first at or after each multiple of 5, and the end"
    )


SHARED = """
import sys
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader

from tests.training.test_callbacks_evaluate import Theirs, evaluation, tiny_images

folder, measured = Path(sys.argv[1]), sys.argv[2] == "measured"
callback = evaluation(folder)
torch.manual_seed(3)
trainer = L.Trainer(
    accelerator="cpu", devices=2, strategy="ddp_find_unused_parameters_true", max_steps=4, logger=False,
    callbacks=[callback] * measured, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
module = Theirs()
trainer.fit(module, DataLoader(tiny_images(16).train, batch_size=4))
values = {step: found["psnr"].value for step, found in callback.history.items()}
monitored = trainer.callback_metrics.get("ldbench/psnr")
torch.save([module.state_dict(), values, monitored], folder / f"{sys.argv[2]}-{trainer.global_rank}.pt")
"""


@pytest.mark.slow
def test_of_two_processes_one_measures_both_know_the_values_and_the_weights_stay(tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    for name in ("measured", "plain"):
        command = [sys.executable, str(script), str(tmp_path), name]
        subprocess.run(command, check=True, cwd=root, env=environment, capture_output=True)
    measured, plain = (
        [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in (0, 1)] for name in ("measured", "plain")
    )
    assert all(torch.equal(value, plain[0][0][name]) for name, value in measured[0][0].items())
    assert measured[0][1].keys() == {2, 4}
    assert measured[0][1] == measured[1][1]
    assert measured[0][2] == measured[1][2]


class Itself(L.LightningModule):
    """A LightningModule that encodes and decodes."""

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z


def test_the_tokenizer_is_found_by_name_by_function_or_because_it_is_the_only_one() -> None:
    module = Theirs()
    assert find_tokenizer(module, None) is module.vae
    assert find_tokenizer(module, "vae") is module.vae
    assert find_tokenizer(module, lambda one: one.vae) is module.vae
    itself = Itself()
    assert find_tokenizer(itself, None) is itself
    module.other = Theirs().vae
    module.deeper = nn.ModuleDict({"ema": Plain()})
    assert find_tokenizer(module, "deeper.ema") is module.deeper["ema"]


@pytest.mark.parametrize(
    ("build", "where", "sentence"),
    [
        (lambda module: setattr(module, "ema", Plain()), None, "several: vae, ema of both. Say which one"),
        (lambda module: delattr(module, "vae"), None, "no encode and decode, and of its submodules none"),
        (lambda module: None, "vea", "Theirs has no vea, where tokenizer='vea' looks: there is no vea"),
        (lambda module: None, "head.weight", "gives a Parameter of Theirs, and it must be a module"),
    ],
)
def test_a_tokenizer_that_is_not_found_is_told_before_any_step(
    build: Callable[[Theirs], object], where: str | None, sentence: str, tmp_path: Path
) -> None:
    module = Theirs()
    build(module)
    with pytest.raises(ValueError, match=sentence):
        trained(tmp_path, evaluation(tmp_path, tokenizer=where), module=module)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"every_n_steps": 0}, "every_n_steps must be a whole number of at least 1, got 0"),
        ({"jobs": "reconstrct"}, "Did you mean reconstruct"),
        ({"jobs": {"smoothness": {"num_image": 1}}}, "Did you mean num_images"),
        ({"jobs": []}, "jobs is empty"),
        ({"data": "digit"}, "Did you mean digits"),
    ],
)
def test_settings_that_do_not_fit_are_told_when_it_is_built(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        evaluation(tmp_path, **changes)
