"""Shared fixtures: a tokenizer so small that all its stages train in a second, known fields, and command lines."""

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import ldbench
from ldbench.config import compose
from ldbench.config.compose import Registry, conf_dir
from ldbench.core.field import Field, Prediction
from ldbench.core.interpolant import PREDICTION_COEFFICIENTS, Interpolant, Kind, expand_like
from ldbench.results import figures
from tests.composing import by_parts

SMALL = [
    "tokenizer.model.width=16",
    "tokenizer.model.depth=1",
    "tokenizer.model.num_heads=2",
    "tokenizer.model.decoder_width=16",
    "tokenizer.model.decoder_depth=1",
    "tokenizer.model.decoder_num_heads=2",
    "tokenizer.stages.pretrain.max_steps=6",
    "tokenizer.stages.pretrain.batch_size=8",
    "tokenizer.stages.pretrain.optimizer.warmup_steps=2",
    "tokenizer.stages.tune.max_steps=4",
    "tokenizer.stages.tune.batch_size=8",
    "tokenizer.stages.tune.optimizer.warmup_steps=2",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "callbacks.checkpoint.every=2",
    "data.subset=0.1",
    "protocol=default",  # the one of the digits trains its extractor first
]


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start: several run at once
    if "gpu" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same tests everywhere: GPU tests are selected by their mark
    # torch's first gradient after a compilation would start threads, and forked processes could compute none
    torch.ones(1, requires_grad=True).backward()
    Registry.compose_from_files = by_parts  # type: ignore[method-assign]
    stamps, ours = compose.folder_stamps, compose.folder_stamps(str(conf_dir()))
    # our own config tree does not change while tests run: its files are read once
    compose.folder_stamps = lambda folder: ours if folder == str(conf_dir()) else stamps(folder)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # existing objects stay: the collector need not traverse torch and Hydra again and again,
    gc.set_threshold(20_000, 20, 20)  # and runs less often: it took a minute of a test run


def pytest_unconfigure() -> None:
    gc.unfreeze()


@dataclass
class Formula:
    """A backbone that is a formula of (x (B, N, C), t (B, 1, 1), y (B, 1, 1)); it records the times of its calls."""

    formula: Callable
    null_class: int | None = None
    learned_variance: bool = False

    def __post_init__(self) -> None:
        self.times = []

    def __call__(self, x, t, y):
        self.times.append(t)
        return self.formula(x, t[:, None, None], y[:, None, None])


@pytest.fixture
def backbone_of() -> Callable[..., Formula]:
    """Builds a backbone from a formula."""
    return Formula


@dataclass(frozen=True)
class Gaussian:
    """Normally distributed data, with the best predictions of a network and the probability flow in closed form."""

    mean: float = 0.7
    std: float = 0.5

    def predict(self, interpolant: Interpolant, kind: Kind, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The best prediction of a kind: the expectation given x."""
        c = interpolant.at(t)
        variance = c.alpha.square() * self.std**2 + c.sigma.square()
        residual = x - expand_like(c.alpha * self.mean, x)
        data = self.mean + expand_like(c.alpha * self.std**2 / variance, x) * residual
        noise = expand_like(c.sigma / variance, x) * residual
        if kind == "score":
            return -expand_like(1 / variance, x) * residual
        of_data, of_noise = PREDICTION_COEFFICIENTS[kind](c)
        return expand_like(of_data, x) * data + expand_like(of_noise, x) * noise

    def field(self, interpolant: Interpolant, kind: Kind, null_class: int | None = None) -> Field:
        """The perfect field with predictions of a kind, in the precision of x."""

        def predict(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> Prediction:
            return Prediction(self.predict(interpolant, kind, x, t), kind, x, t, interpolant)

        return Field(predict, interpolant=interpolant, prediction=kind, null_class=null_class)

    def flow(self, interpolant: Interpolant, noise: torch.Tensor) -> torch.Tensor:
        """The data to which the probability-flow ODE maps noise."""
        c = interpolant.at(torch.zeros(1))
        start = (c.alpha.square() * self.std**2 + c.sigma.square()).sqrt()
        return self.mean + self.std * (noise - float(c.alpha) * self.mean) / float(start)


@pytest.fixture
def gaussian() -> Gaussian:
    """Normal data with a known field."""
    return Gaussian()


@pytest.fixture(scope="session")
def small_overrides() -> list[str]:
    """The overrides of a tiny VMAE."""
    return list(SMALL)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes the config of a tiny VMAE under its own root; overrides are added to it."""

    def compose(*overrides: str) -> DictConfig:
        cfg = ldbench.compose("train", [*SMALL, *overrides])
        if not any(override.startswith("paths.root=") for override in overrides):
            cfg.paths.root = str(tmp_path)  # set afterwards: a config that many tests need is composed once
        return cfg

    return compose


Answer = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answer:
    """Runs an entry point (its module) with a command line in this process, which saves seconds over a new process."""

    def enter(entry: ModuleType, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [entry.__name__, *arguments])
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # otherwise both would stay for the next tests,
        monkeypatch.setattr(logging.root, "handlers", [])  # which would write to a closed stream
        for name in ("HYDRA_FULL_ERROR", "LDBENCH_SHORT_ERRORS"):  # an entry point sets them, for its children
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        capsys.readouterr()
        try:
            entry.main()
            status = 0
        except SystemExit as error:
            status = error.code
        output = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, output.out, output.err)

    return enter


@pytest.fixture(autouse=True)
def _no_learning_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training draws its curves at the end, as slow as a tiny training itself: only for tests marked `curves`."""
    if not request.node.get_closest_marker("curves"):
        monkeypatch.setattr(figures, "learning_curves", lambda logs, out: None)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests are small: one thread is faster, and gives the same sums everywhere."""
    torch.set_num_threads(1)
