"""Job `probe`: what latents hold of an image's class, over how many dimensions, and which channels hold nothing."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ldbench.analysis.attentive import attentive_probe
from ldbench.analysis.channels import channels
from ldbench.analysis.cka import linear_cka
from ldbench.analysis.clustering import hierarchy
from ldbench.analysis.dimension import two_nn
from ldbench.analysis.knn import neighbours
from ldbench.analysis.probe import linear_probe
from ldbench.analysis.rank import effective_rank
from ldbench.analysis.uniformity import uniformity
from ldbench.core.interfaces import Estimate, ImageData, ImageSet, Teacher
from ldbench.core.intervals import proportion
from ldbench.core.tokenizer import Tokenizer
from ldbench.jobs._decoder_features import decoder_features

log = logging.getLogger(__name__)

READER = {
    "width": 64,
    "num_heads": 4,
    "steps": 600,
    "batch_size": 64,
    "lr": 2e-3,
    "weight_decay": 0.01,
}  # of the attentive probe
KEPT = 0.9  # of TwoNN's ratios
DOUBLINGS = 6  # up to 64 clusters
PERPLEXITY = 30.0
LAYOUTS = 3
ASKED = ("linear", "neighbours", "dimension", "channels", "attentive", "teacher", "clustering", "uniformity")


@dataclass(frozen=True)
class Encoded:
    """The posteriors of a split."""

    mean: Tensor  # (n, N, C) float32
    logvar: Tensor | None  # (n, N, C); None: points
    y: Tensor  # (n,)


class Probe:
    """Looks at the posterior means of training images, and judges what was learned of them on all held-out ones.

    The linear reader sees each number of a latent at deviation 1; neighbours, dimension, clusters and layouts are those of latents whose channels
    have deviation 1 over the training images, as generators see them; the effective rank is that of the means as they are.
    Raises ValueError where nothing is asked for that applies to the data.
    """

    name: ClassVar[str] = "probe"
    revision: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    higher_is_better: ClassVar[Mapping[str, bool]] = {
        "probe/accuracy": True,
        "probe/knn_accuracy": True,
        "probe/attentive_accuracy": True,
    }
    settings: ClassVar[tuple[str, ...]] = (
        "num_train",
        "seed",
        "penalty",
        "max_iter",
        "collapse_below",
        "num_points",
        *ASKED,
    )

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        data: ImageData,
        teachers: Callable[[str], Teacher],
        num_train: int | None,  # at most; None: all
        seed: int,
        linear: bool,
        penalty: float,
        max_iter: int,
        neighbours: int | None,
        dimension: bool,
        channels: bool,
        collapse_below: float,
        attentive: bool,
        teacher: str | None,
        clustering: bool,
        uniformity: bool,
        num_points: int,
        batch_size: int,
        workers: int,
        device: torch.device,
    ):
        asked = {"linear": linear, "neighbours": neighbours, "attentive": attentive}
        others = {
            "dimension": dimension,
            "channels": channels,
            "teacher": teacher,
            "clustering": clustering,
            "uniformity": uniformity,
        }
        if data.num_classes < 2:
            if not any(others.values()):
                raise ValueError(
                    f"A probe tells classes apart, and {data.name} has {data.num_classes}. Ask for something else: job.dimension=true."
                )
            log.info("%s has no classes to tell apart: no accuracies are measured.", data.name)
            asked = dict.fromkeys(asked)
        self.asked = {name for name, value in (asked | others).items() if value}
        self.tokenizer = tokenizer
        self.data = data
        self.teachers = teachers
        self.num_train = num_train
        self.seed = seed
        self.penalty = penalty
        self.max_iter = max_iter
        self.num_neighbours = neighbours
        self.collapse_below = collapse_below
        self.teacher = teacher
        self.num_points = num_points
        self.batch_size = batch_size
        self.workers = workers
        self.device = device

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        num_train = settings["num_train"]
        if num_train is not None and (not isinstance(num_train, int) or num_train < 2):
            raise ValueError(f"job.num_train must be a whole number of at least 2, or null for all, got {num_train!r}.")
        if settings["penalty"] <= 0:
            raise ValueError(f"job.penalty must be positive, got {settings['penalty']}.")
        if not 0 < settings["collapse_below"] < 1:
            raise ValueError(f"job.collapse_below must be between 0 and 1, got {settings['collapse_below']}.")
        if settings["neighbours"] is not None and settings["neighbours"] < 1:
            raise ValueError(f"job.neighbours must be at least 1, or null for none, got {settings['neighbours']}.")
        for key, least in {
            "max_iter": 1,
            "batch_size": 1,
            "num_points": max(2**DOUBLINGS, int(PERPLEXITY) + 1),
        }.items():
            if settings[key] < least:
                raise ValueError(f"job.{key} must be at least {least}, got {settings[key]}.")
        if not any(settings[name] for name in ASKED):
            raise ValueError(
                f"This probe asks for nothing. Switch one on: {', '.join(f'job.{name}' for name in ASKED)}."
            )

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again: none."""
        return ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """Every figure that was asked for and applies; shares of held-out images with their 95 % interval."""
        train, test = self.encode(self.chosen(self.data.train), spread=True), self.encode(self.data.test, spread=False)
        mean, std = train.mean.double().mean(dim=(0, 1)), train.mean.double().std(dim=(0, 1), correction=0)
        unit = torch.where(std > 0, std, 1.0)
        train_z, test_z = ((split.mean - mean.float()) / unit.float() for split in (train, test))
        measures = {
            "linear": lambda: self.linear(train, test),
            "neighbours": lambda: self.neighbours(train_z, train.y, test_z, test.y),
            "dimension": lambda: self.dimension(train, train_z),
            "channels": lambda: self.channels(train),
            "attentive": lambda: self.attentive(train_z, train.y, test_z, test.y),
            "teacher": lambda: self.alignment(test_z),
            "clustering": lambda: self.clustering(test, test_z),
            "uniformity": lambda: self.uniformity(test_z),
        }
        assert tuple(measures) == ASKED
        found: dict[str, Estimate] = {}
        for name, measure in measures.items():
            if name in self.asked:
                found |= measure()
        return {f"probe/{name}": estimate for name, estimate in found.items()}

    def linear(self, train: Encoded, test: Encoded) -> dict[str, Estimate]:
        """The linear reader's accuracy, and that of always naming the most frequent class."""
        readable = train.mean.flatten(1), train.y, test.mean.flatten(1), test.y
        found = linear_probe(*readable, penalty=self.penalty, max_iter=self.max_iter)
        return {"accuracy": proportion(found.correct), "chance": Estimate(found.chance)}

    def neighbours(self, train: Tensor, train_y: Tensor, test: Tensor, test_y: Tensor) -> dict[str, Estimate]:
        """The accuracy of the nearest neighbours' vote."""
        assert self.num_neighbours is not None
        found = neighbours(train.flatten(1), train_y, test.flatten(1), test_y, k=min(self.num_neighbours, len(train)))
        return {"knn_accuracy": proportion(found.right)}

    def attentive(self, train: Tensor, train_y: Tensor, test: Tensor, test_y: Tensor) -> dict[str, Estimate]:
        """The attentive reader's accuracy."""
        found = attentive_probe(train, train_y, test, test_y, **READER, seed=self.seed, device=self.device)
        return {"attentive_accuracy": proportion(found.right)}

    def dimension(self, train: Encoded, z: Tensor) -> dict[str, Estimate]:
        """Intrinsic dimension, and effective ranks of whole latents and of tokens."""
        near = two_nn(z.flatten(1), kept=KEPT)
        return {
            "intrinsic_dimension": Estimate(near.value, near.low, near.high),
            "effective_rank": Estimate(effective_rank(train.mean.flatten(1)).value),
            "effective_rank_channels": Estimate(effective_rank(train.mean.flatten(0, 1)).value),
        }

    def channels(self, train: Encoded) -> dict[str, Estimate]:
        """Counts of collapsed channels and numbers of a latent; signal to noise over the channels, where posteriors are no points."""
        told = channels(train.mean, train.logvar)
        found = {"collapsed_channels": Estimate(float(told.collapsed_channels(self.collapse_below).sum()))}
        found["collapsed_units"] = Estimate(float(told.collapsed_units(self.collapse_below).sum()))
        if train.logvar is not None:
            snr = told.snr_db()
            found |= {
                f"snr_db_{name}": Estimate(value.item())
                for name, value in (("min", snr.min()), ("median", snr.median()), ("max", snr.max()))
            }
        return found

    def alignment(self, test: Tensor) -> dict[str, Estimate]:
        """CKA of whole latents to all features of the teacher."""
        assert self.teacher is not None
        teacher = self.teachers(self.teacher)
        if isinstance(teacher, torch.nn.Module):
            teacher.to(self.device)
        grid = self.tokenizer.patch_grid
        loader = DataLoader(self.data.test, batch_size=self.batch_size, num_workers=self.workers)
        features = torch.cat([teacher(images.to(self.device), grid).float().cpu() for images, _ in loader])
        return {f"cka_{self.teacher}": Estimate(linear_cka(test, features).cka)}

    def clustering(self, test: Encoded, z: Tensor) -> dict[str, Estimate]:
        """How much of the variance stands between clusters, and how evenly it comes in with their number, of latents and of decoder features."""
        found = {}
        views = {"latent": z, "decoder": self.seen_by_decoder(test.mean)}
        for view, features in views.items():
            if features is None:
                log.info(
                    "No module of the decoder works on the %s grid of patches: its features are not clustered.",
                    self.tokenizer.patch_grid,
                )
                continue
            told = hierarchy(self.points(features), doublings=DOUBLINGS)
            found[f"clustering/{view}_score"] = Estimate(told.score)
            found |= {f"clustering/{view}_explained/k={k}": Estimate(share) for k, share in told.explained.items()}
        return found

    def uniformity(self, test: Tensor) -> dict[str, Estimate]:
        """VA-VAE's three figures, means over layouts."""
        told = uniformity(self.points(test), perplexity=PERPLEXITY, seeds=range(self.seed, self.seed + LAYOUTS))
        return {
            "uniformity/density_cv": Estimate(told.cv),
            "uniformity/gini": Estimate(told.gini),
            "uniformity/entropy": Estimate(told.entropy),
        }

    def points(self, features: Tensor) -> Tensor:  # (n, P, D) -> (num_points or all, D)
        """Tokens of all images, drawn by the seed."""
        tokens = features.flatten(0, 1)
        return tokens[
            torch.randperm(len(tokens), generator=torch.Generator().manual_seed(self.seed))[: self.num_points]
        ]

    @torch.no_grad()
    def seen_by_decoder(self, z: Tensor) -> Tensor | None:  # (n, N, C) -> (n, P, D)
        """Decoder features of latents; None where there are none."""
        parts = [decoder_features(self.tokenizer, part.to(self.device)) for part in z.split(self.batch_size)]
        kept = [part.float().cpu() for part in parts if part is not None]
        return torch.cat(kept) if kept else None

    def chosen(self, images: ImageSet) -> ImageSet:
        """The training images that are used, drawn from the seed alone; fewer of one seed are among more of it."""
        if self.num_train is None or self.num_train >= len(images):
            return images
        drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))[: self.num_train]
        return Subset(images, drawn.sort().values.tolist())

    @torch.no_grad()
    def encode(self, images: ImageSet, *, spread: bool) -> Encoded:
        """The posterior means of all images, and with `spread` their log-variances, where there are any."""
        self.tokenizer.to(self.device).eval()
        means, logvars, labels = [], [], []
        for batch, y in DataLoader(images, batch_size=self.batch_size, num_workers=self.workers):
            posterior = self.tokenizer.encode(batch.to(self.device))
            means.append(posterior.mean.float().cpu())
            if spread and posterior.logvar is not None:
                logvars.append(posterior.logvar.float().cpu())
            labels.append(y)
        return Encoded(torch.cat(means), torch.cat(logvars) if logvars else None, torch.cat(labels))
