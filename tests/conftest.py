"""What many tests share: a tokenizer so small that all its stages train in a second."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

import ldbench
from ldbench import config
from ldbench.core.field import Field, Prediction
from ldbench.core.interpolant import Interpolant, Kind, spread

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


TREE = config.unchanging()  # while tests run the config tree does not change: what was composed once is not read from files again


def pytest_configure() -> None:
    TREE.__enter__()


def pytest_unconfigure() -> None:
    TREE.__exit__(None, None, None)


@dataclass
class Formula:
    """A backbone that is a formula of (x (B, N, C), t (B, 1, 1), y (B, 1, 1)); it remembers the times that it was told."""

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
    """Makes a backbone of a formula."""
    return Formula


@dataclass(frozen=True)
class Gaussian:
    """Data whose tokens are normal, all that a network could know of them in closed form, and where their flow ends."""

    mean: float = 0.7
    std: float = 0.5

    def told(self, interpolant: Interpolant, kind: Kind, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The best prediction of a kind: the expectation given x."""
        c = interpolant.at(t)
        variance = c.alpha.square() * self.std**2 + c.sigma.square()
        residual = x - spread(c.alpha * self.mean, x)
        data = self.mean + spread(c.alpha * self.std**2 / variance, x) * residual
        noise = spread(c.sigma / variance, x) * residual
        if kind == "score":
            return -spread(1 / variance, x) * residual
        return interpolant.written(kind, noise, data, t)

    def field(self, interpolant: Interpolant, kind: Kind, null_class: int | None = None) -> Field:
        """The perfect field in words of a kind, in the precision of x."""

        def predict(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> Prediction:
            return Prediction(self.told(interpolant, kind, x, t), kind, x, t, interpolant)

        return Field(predict, interpolant=interpolant, prediction=kind, null_class=null_class)

    def flow(self, interpolant: Interpolant, noise: torch.Tensor) -> torch.Tensor:
        """Where the probability-flow ODE takes noise."""
        c = interpolant.at(torch.zeros(1))
        start = (c.alpha.square() * self.std**2 + c.sigma.square()).sqrt()
        return self.mean + self.std * (noise - float(c.alpha) * self.mean) / float(start)


@pytest.fixture
def gaussian() -> Gaussian:
    """Normal data with a known field."""
    return Gaussian()


@pytest.fixture(scope="session")
def small_overrides() -> list[str]:
    """What the command line needs for a tiny VMAE."""
    return list(SMALL)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes the config of a tiny VMAE under a root of its own; overrides are added to it."""

    def compose(*overrides: str) -> DictConfig:
        return ldbench.compose("train", [*SMALL, f"paths.root={tmp_path}", *overrides])

    return compose


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests are small: one thread is faster, and keeps their sums the same everywhere."""
    torch.set_num_threads(1)
