"""Stand-ins for a cell whose samples have the level of their label: a generator, a tokenizer, an extractor, images."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.interpolants import Linear
from ldbench.core.latent import LatentSpec
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.jobs.generate import Generate
from ldbench.metrics.feature_set import Features
from ldbench.sampling.guidance import Unguided
from ldbench.sampling.ode import FixedGrid

CLASSES = 4
EULER = FixedGrid(rule="euler", num_steps=2, shift=1.0, margin=1e-3, last_step="none", dtype="float32")


class Labelled(nn.Module):
    """A stand-in for a generator: latents of a label's level, with a little noise. Counts its samples."""

    def __init__(self, num_classes: int = CLASSES):
        super().__init__()
        self.backbone = SimpleNamespace(
            latent=LatentSpec(16, 3, (4, 4)), num_classes=num_classes, validate_labels=self.validate_labels
        )
        self.num_sampled = 0

    def validate_labels(self, y: Tensor) -> None:
        if y.min() < 0 or y.max() >= self.backbone.num_classes:
            raise ValueError(f"labels {y.tolist()}")

    def check(self, sampler: Any, guidance: Any) -> None:
        sampler.check(Linear())

    def sample(self, noise: Tensor, y: Tensor, sampler: Any, guidance: Any, *, stream: Any) -> Tensor:
        self.num_sampled += len(y)
        return (y.float() / CLASSES - 0.5)[:, None, None] + 0.05 * noise + 0.01 * stream.normal(1, noise.shape)


class Pixels(nn.Module):
    """A tokenizer of 4 x 4 pixels, with a latent token for each."""

    def decode(self, z: Tensor) -> Tensor:
        return z.transpose(1, 2).unflatten(2, (4, 4)) + 0.125


class Levels(nn.Module):
    """The mean of each color, and the class of this level."""

    revision, provides, standard = 1, frozenset({"features", "logits"}), False

    def extract(self, images: Tensor) -> Features:
        colors = images.float().mean(dim=(2, 3))
        level = (colors.mean(dim=1) / 127.5 - 1 + 0.375) * CLASSES
        return Features(colors, logits=-(level[:, None] - torch.arange(CLASSES)).abs())


def images() -> Any:
    """Real images of these levels, in two splits."""

    def split(count: int) -> TensorDataset:
        y = torch.arange(count) % CLASSES
        noise = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(count))
        return TensorDataset((y.float() / CLASSES - 0.375)[:, None, None, None] + 0.05 * noise, y)

    return SimpleNamespace(
        name="levels",
        fingerprint="1",
        train=split(200),
        test=split(80),
        num_classes=CLASSES,
        class_names=("a", "b", "c", "d"),
        image_size=4,
    )


def evaluator(folder: Path, *names: str) -> SetEvaluator:
    """The metrics on sets of these names."""
    metrics = {name: instantiate(Registry().option("distribution", name)) for name in names}
    facts = {"folder": folder / "features", "workers": 0, "device": torch.device("cpu")}
    return SetEvaluator(label="levels", extractor=Levels(), key="a", metrics=metrics, kept=1000, **facts)


def generate_job(data: Any, sets: SetEvaluator) -> Callable[..., Generate]:
    """Builds job `generate`; inputs are changed by keyword."""

    def make(**changes: Any) -> Generate:
        settings = {
            **{
                "tokenizer": Pixels(),
                "generator": Labelled(),
                "sampler": EULER,
                "guidance": Unguided(),
                "sampling_seed": 0,
                "data": data,
            },
            **{
                "num_samples": 30,
                "labels": "balanced",
                "sets": sets,
                "ratio_sets": {},
                "reference": "train",
                "pixel_rule": "round",
                "batch_size": 4,
                "part_size": 8,
            },
            **{"precision": "fp32", "compile": False, "path_geometry": False},
            **{"num_processes": 1},
            **{"device": torch.device("cpu"), "save_images": False, "save_npz": True},
        }
        return Generate(**{**settings, **changes})

    return make
