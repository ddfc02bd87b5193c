"""Shared hooks and fixtures: a tokenizer so small that its stages train in a second, known fields, command lines."""

import gc
import hashlib
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO

import pytest
import torch
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from omegaconf import DictConfig

import ldbench
from ldbench.config import compose
from ldbench.config.compose import Registry, conf_dir
from ldbench.core.field import Field, Prediction
from ldbench.core.interpolant import PREDICTION_COEFFICIENTS, Interpolant, Kind, expand_like
from ldbench.data import digits
from ldbench.pipeline import pipeline
from ldbench.results import figures
from ldbench.runtime import workers
from ldbench.training import fit
from tests import examples, forking
from tests.composing import by_parts, reading_once

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
    "protocol=default",  # without an extractor, whose features take time
]


FILES = reading_once()
FIT = fit.fit_module
TRAINED = {"already", "made_once", "trained"}  # fixtures
DRAWN = {(figures, "learning_curves"): figures.learning_curves, (Figure, "savefig"): Figure.savefig}
DOT = bytes.fromhex(  # a picture of one pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start: several run at once
    if "gpu" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same tests everywhere: GPU tests are selected by their mark
    profile = "default" if "not slow" in config.option.markexpr else "thorough"
    examples.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", profile))
    # torch's first gradient after a compilation would start threads, and forked processes could compute none
    torch.ones(1, requires_grad=True).backward()
    FILES.__enter__()
    Registry.compose_from_files = by_parts  # type: ignore[method-assign]
    stamps, ours = compose.folder_stamps, compose.folder_stamps(str(conf_dir()))
    # our own config tree does not change while tests run: its files are read once
    compose.folder_stamps = lambda folder: ours if folder == str(conf_dir()) else stamps(folder)
    digits._load = cache(digits._load)  # the scans are a text file of numbers


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks tests that start from a training, and deselects GPU tests unless their mark is asked for."""
    for item in items:
        if TRAINED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.trains)
    if "gpu" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("gpu")])
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # existing objects stay: the collector need not traverse torch and Hydra again and again,
    gc.set_threshold(20_000, 20, 20)  # and runs less often: it took a minute of a test run


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Runs before all fixtures, also those of a module or session."""
    fit.fit_module = FIT if any(item.get_closest_marker(mark) for mark in ("trains", "slow", "gpu")) else unmarked
    draw(item.get_closest_marker("curves") is not None)
    torch.set_num_threads(1)  # tests are small: one thread is faster, and gives the same sums everywhere


def unmarked(*_: object, **__: object) -> None:
    pytest.fail("This test trains: mark it `trains`, so that `make test-unit` leaves it out.")


def draw(really: bool) -> None:
    """Whether figures are drawn, and curves at the end of a training, as slow as a tiny training itself."""
    for (owner, name), drawn in DRAWN.items():
        setattr(owner, name, drawn if really else {"savefig": dotted}.get(name, lambda logs, out: None))


def dotted(_: Figure, out: str | Path | IO[bytes], **how: object) -> None:
    """Writes a picture of one pixel in a figure's place."""
    out.write(DOT) if hasattr(out, "write") else Path(out).write_bytes(DOT)


def pytest_unconfigure() -> None:
    gc.unfreeze()
    draw(True)
    fit.fit_module = FIT
    FILES.__exit__(None, None, None)


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Whether slow tests run too: then tests that run a share of many cases run all of them."""
    return "not slow" not in pytestconfig.option.markexpr


@pytest.fixture(scope="session")
def some(thorough: bool) -> Callable[..., list]:
    """Gives one in `every` of many similar cases, from `start` on; all of them where slow tests run too."""
    return lambda cases, every, start=0: list(cases) if thorough else list(cases)[start % every :: every]


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


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Returns the folder of a name, which a function fills once for all test processes; tests work on copies."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made"
    base.mkdir(exist_ok=True)

    def get(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                fill(folder)
                done.touch()
        return folder

    return get


@pytest.fixture
def already(
    made_once: Callable[[str, Callable[[Path], object]], Path], small: Callable[..., DictConfig], tmp_path: Path
) -> Callable[..., Path]:
    """Copies the output of a tiny VMAE's training to this test's root, as if trained there; returns its artifact."""

    def put(*overrides: str) -> Path:
        def fill(root: Path) -> None:
            pipeline.train(small(*overrides, f"paths.root={root}"))

        name = "vmae" if not overrides else f"vmae-{hashlib.sha256(repr(overrides).encode()).hexdigest()[:12]}"
        shutil.copytree(made_once(name, fill), tmp_path, dirs_exist_ok=True, symlinks=True)
        (folder,) = (path.parent for path in tmp_path.glob("artifacts/tokenizers/vmae-*/manifest.json"))
        return folder

    return put


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


@pytest.fixture
def shares_by_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are forked from this one: each would import torch first. One test starts a new one."""
    monkeypatch.setattr(workers, "spawn", forking.share)
    monkeypatch.setattr(
        workers, "multiprocessing", SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork"))
    )
