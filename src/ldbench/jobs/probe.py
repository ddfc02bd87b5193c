"""Job `probe`: how much class information latents contain, their dimension, and their collapsed channels."""

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
from ldbench.analysis.knn import nearest_neighbors
from ldbench.analysis.label_consistency import label_consistency
from ldbench.analysis.probe import linear_probe
from ldbench.analysis.rank import effective_rank
from ldbench.analysis.uniformity import uniformity
from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData, ImageSet, Teacher
from ldbench.core.intervals import mean_share, proportion
from ldbench.core.tokenizer import Tokenizer
from ldbench.jobs._decoder_features import decoder_features
from ldbench.jobs._latent_picture import PICTURE, draw_latents

log = logging.getLogger(__name__)

ATTENTIVE: dict[str, Any] = {
    "width": 64,
    "num_heads": 4,
    "steps": 600,
    "batch_size": 64,
    "lr": 2e-3,
    "weight_decay": 0.01,
}
TWO_NN_SHARE = 0.9  # of the ratios
DOUBLINGS = 6  # up to 64 clusters
PERPLEXITY = 30.0
LAYOUTS = 3
ANALYSES = (
    *("linear", "neighbours", "dimension", "channels", "attentive", "teacher", "clustering", "uniformity"),
    "label_consistency",
)


@dataclass(frozen=True)
class Encoded:
    """The posteriors of a split."""

    mean: Tensor  # (n, N, C) float32
    logvar: Tensor | None  # (n, N, C); None: points
    y: Tensor  # (n,)


class Probe:
    """Analyzes the posterior means of training images, and evaluates probes on all held-out ones.

    The linear probe standardizes each number of a latent; nearest neighbors, dimension, clusters and layouts use
    latents whose channels are standardized over the training images, as generators do; the effective rank uses the raw
    means. `picture` draws held-out latents in planes. Raises ValueError if no enabled analysis applies to the data.
    """

    name: ClassVar[str] = "probe"
    revision: ClassVar[int] = 3
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    higher_is_better: ClassVar[Mapping[str, bool]] = {
        "probe/accuracy": True,
        "probe/knn_accuracy": True,
        "probe/attentive_accuracy": True,
        "probe/label_consistency": True,
    }
    settings: ClassVar[tuple[str, ...]] = (
        "num_train",
        "seed",
        "penalty",
        "max_iter",
        "collapse_below",
        "num_points",
        *ANALYSES,
    )
    plain: ClassVar[Mapping[str, Any]] = {"label_consistency": None}  # the behavior before this setting existed

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
        label_consistency: int | None,
        num_points: int,
        picture: bool,
        batch_size: int,
        workers: int,
        device: torch.device,
    ):
        class_analyses = {
            "linear": linear,
            "neighbours": neighbours,
            "attentive": attentive,
            "label_consistency": label_consistency,
        }
        other_analyses = {
            "dimension": dimension,
            "channels": channels,
            "teacher": teacher,
            "clustering": clustering,
            "uniformity": uniformity,
        }
        if data.num_classes < 2:
            if not any(other_analyses.values()):
                raise ValueError(
                    f"Probes distinguish classes, and {data.name} has {data.num_classes}. Choose another analysis: "
                    "job.dimension=true."
                )
            log.info("%s has only one class: no accuracies are measured.", data.name)
            class_analyses = dict.fromkeys(class_analyses)
        self.analyses = {name for name, value in (class_analyses | other_analyses).items() if value}
        self.tokenizer = tokenizer
        self.data = data
        self.teachers = teachers
        self.num_train = num_train
        self.seed = seed
        self.penalty = penalty
        self.max_iter = max_iter
        self.num_neighbors = neighbours
        self.num_consistent = label_consistency
        self.collapse_below = collapse_below
        self.teacher = teacher
        self.num_points = num_points
        self.picture = picture
        self.batch_size = batch_size
        self.workers = workers
        self.device = device
        self.per_image: dict[str, Tensor] = {}  # of the last run

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
        for key in ("neighbours", "label_consistency"):
            if settings[key] is not None and settings[key] < 1:
                raise ValueError(f"job.{key} must be at least 1, or null for none, got {settings[key]}.")
        for key, minimum in {
            "max_iter": 1,
            "batch_size": 1,
            "num_points": max(2**DOUBLINGS, int(PERPLEXITY) + 1),
        }.items():
            if settings[key] < minimum:
                raise ValueError(f"job.{key} must be at least {minimum}, got {settings[key]}.")
        if not any(settings[name] for name in ANALYSES):
            raise ValueError(
                f"No analysis is enabled. Enable at least one of {', '.join(f'job.{name}' for name in ANALYSES)}."
            )

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated."""
        return (PICTURE,) if settings["picture"] else ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """The metrics of all enabled analyses that apply; accuracies with their 95 % interval over held-out images.

        Writes `out/latents.png` if requested.
        """
        train, test = (
            self.encode(self.training_images(self.data.train), with_logvar=True),
            self.encode(self.data.test, with_logvar=False),
        )
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
            "label_consistency": lambda: self.label_consistency(train_z, train.y, test_z, test.y),
        }
        assert tuple(measures) == ANALYSES
        metrics: dict[str, Estimate] = {}
        for name, measure in measures.items():
            if name in self.analyses:
                metrics |= measure()
        if self.picture:
            names, count = self.data.class_names, self.num_points
            draw_latents(test_z, test.y, names, out, num_points=count, perplexity=PERPLEXITY, seed=self.seed)
        return {f"probe/{name}": estimate for name, estimate in metrics.items()}

    def linear(self, train: Encoded, test: Encoded) -> dict[str, Estimate]:
        """The linear probe's accuracy, and that of always answering the most frequent class."""
        data = train.mean.flatten(1), train.y, test.mean.flatten(1), test.y
        probe = linear_probe(*data, penalty=self.penalty, max_iter=self.max_iter)
        self.per_image["probe/accuracy"] = probe.correct.double()
        return {"accuracy": proportion(probe.correct), "chance": Estimate(probe.chance)}

    def neighbours(self, train: Tensor, train_y: Tensor, test: Tensor, test_y: Tensor) -> dict[str, Estimate]:
        """The accuracy of the nearest neighbors' vote."""
        assert self.num_neighbors is not None
        k = min(self.num_neighbors, len(train))
        vote = nearest_neighbors(train.flatten(1), train_y, test.flatten(1), test_y, k=k)
        self.per_image["probe/knn_accuracy"] = vote.correct.double()
        return {"knn_accuracy": proportion(vote.correct)}

    def label_consistency(self, train: Tensor, train_y: Tensor, test: Tensor, test_y: Tensor) -> dict[str, Estimate]:
        """The share of the nearest images with the same label, by the mean over the tokens of each."""
        assert self.num_consistent is not None
        k = min(self.num_consistent, len(train))
        shares = label_consistency(train.mean(dim=1), train_y, test.mean(dim=1), test_y, k=k)
        self.per_image["probe/label_consistency"] = shares
        return {"label_consistency": mean_share(shares)}

    def attentive(self, train: Tensor, train_y: Tensor, test: Tensor, test_y: Tensor) -> dict[str, Estimate]:
        """The attentive probe's accuracy."""
        probe = attentive_probe(train, train_y, test, test_y, **ATTENTIVE, seed=self.seed, device=self.device)
        self.per_image["probe/attentive_accuracy"] = probe.correct.double()
        return {"attentive_accuracy": proportion(probe.correct)}

    def dimension(self, train: Encoded, z: Tensor) -> dict[str, Estimate]:
        """Intrinsic dimension, and effective ranks of whole latents and of tokens."""
        dimension = two_nn(z.flatten(1), kept=TWO_NN_SHARE)
        return {
            "intrinsic_dimension": Estimate(dimension.value, dimension.low, dimension.high),
            "effective_rank": Estimate(effective_rank(train.mean.flatten(1)).value),
            "effective_rank_channels": Estimate(effective_rank(train.mean.flatten(0, 1)).value),
        }

    def channels(self, train: Encoded) -> dict[str, Estimate]:
        """The numbers of collapsed channels and units of a latent; signal to noise over channels, unless posteriors
        are points.
        """
        variances = channels(train.mean, train.logvar)
        metrics = {"collapsed_channels": Estimate(float(variances.collapsed_channels(self.collapse_below).sum()))}
        metrics["collapsed_units"] = Estimate(float(variances.collapsed_units(self.collapse_below).sum()))
        if train.logvar is not None:
            snr = variances.snr_db()
            metrics |= {
                f"snr_db_{name}": Estimate(value.item())
                for name, value in (("min", snr.min()), ("median", snr.median()), ("max", snr.max()))
            }
        return metrics

    def alignment(self, test: Tensor) -> dict[str, Estimate]:
        """CKA of whole latents to all features of the teacher."""
        assert self.teacher is not None
        teacher = self.teachers(self.teacher)
        if isinstance(teacher, torch.nn.Module):
            teacher.to(self.device)
        grid = self.tokenizer.patch_grid
        loader = self.loader(self.data.test)
        features = torch.cat([teacher(images.to(self.device), grid).float().cpu() for images, _ in loader])
        return {f"cka_{self.teacher}": Estimate(linear_cka(test, features).cka)}

    def clustering(self, test: Encoded, z: Tensor) -> dict[str, Estimate]:
        """The share of variance between clusters and how evenly it grows with their number, of latents and of
        decoder features.
        """
        metrics = {}
        views = {"latent": z, "decoder": self.decoder_features(test.mean)}
        for view, features in views.items():
            if features is None:
                log.info(
                    "No module of the decoder works on the %s grid of patches: its features are not clustered.",
                    self.tokenizer.patch_grid,
                )
                continue
            clusters = hierarchy(self.points(features), doublings=DOUBLINGS)
            metrics[f"clustering/{view}_score"] = Estimate(clusters.score)
            explained = clusters.explained.items()
            metrics |= {f"clustering/{view}_explained/k={k}": Estimate(share) for k, share in explained}
        return metrics

    def uniformity(self, test: Tensor) -> dict[str, Estimate]:
        """VA-VAE's three metrics, averaged over layouts."""
        seeds = range(self.seed * LAYOUTS, (self.seed + 1) * LAYOUTS)  # no seed of the job shares a layout with another
        density = uniformity(self.points(test), perplexity=PERPLEXITY, seeds=seeds)
        return {
            "uniformity/density_cv": Estimate(density.cv),
            "uniformity/gini": Estimate(density.gini),
            "uniformity/entropy": Estimate(density.entropy),
        }

    def points(self, features: Tensor) -> Tensor:  # (n, P, D) -> (num_points or all, D)
        """A random subset of the tokens of all images, by the seed."""
        tokens = features.flatten(0, 1)
        return tokens[
            torch.randperm(len(tokens), generator=torch.Generator().manual_seed(self.seed))[: self.num_points]
        ]

    @torch.no_grad()
    def decoder_features(self, z: Tensor) -> Tensor | None:  # (n, N, C) -> (n, P, D)
        """Decoder features of latents; None if the decoder has none."""
        parts = [decoder_features(self.tokenizer, part.to(self.device)) for part in z.split(self.batch_size)]
        features = [part.float().cpu() for part in parts if part is not None]
        return torch.cat(features) if features else None

    def training_images(self, images: ImageSet) -> ImageSet:
        """A random subset of the training images by the seed; a smaller one is contained in a larger one of the same
        seed.
        """
        if self.num_train is None or self.num_train >= len(images):
            return images
        drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))[: self.num_train]
        return Subset(images, drawn.sort().values.tolist())  # type: ignore[arg-type]

    def loader(self, images: ImageSet) -> DataLoader[Any]:
        """Images in order, in batches."""
        return DataLoader(images, batch_size=self.batch_size, num_workers=self.workers)  # type: ignore[arg-type]

    @torch.no_grad()
    def encode(self, images: ImageSet, *, with_logvar: bool) -> Encoded:
        """The posterior means of all images, and with `with_logvar` their log-variances, unless posteriors are
        points.
        """
        self.tokenizer.to(self.device).eval()
        means, logvars, labels = [], [], []
        for batch, y in self.loader(images):
            posterior = self.tokenizer.encode(batch.to(self.device))
            means.append(posterior.mean.float().cpu())
            if with_logvar and posterior.logvar is not None:
                logvars.append(posterior.logvar.float().cpu())
            labels.append(y)
        return Encoded(torch.cat(means), torch.cat(logvars) if logvars else None, torch.cat(labels))
