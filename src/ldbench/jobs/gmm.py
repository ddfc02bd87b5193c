"""Job `gmm`: how well mixtures of Gaussians describe a tokenizer's latents.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models (MAETok), 2025, https://arxiv.org/abs/2502.03444 (fig. 2, B.3)
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from ldbench.analysis.gmm.curve import POINTS_PER_COMPONENT, Fitted, Way, affordable, fitted, single
from ldbench.analysis.gmm.mixture import KINDS, Kind
from ldbench.analysis.gmm.points import Points
from ldbench.analysis.gmm.whitening import Whitening, whiten
from ldbench.core.interfaces import Estimate
from ldbench.data.latents.store import LatentStore
from ldbench.jobs._latent_points import Each, StoredPoints, unmirrored
from ldbench.jobs._mixture_report import FIGURE, MIXTURES, NUMBERS, OfClass, Report

log = logging.getLogger(__name__)


class Gmm:
    """Fits mixtures of a growing number of components to training latents, and measures their likelihood on held-out ones.

    Points are latents in the PCA-whitened basis of the training part, which no scaling or rotation of a latent changes. All figures are nats in it.
    The score is how much fewer nats a dimension costs under the mixture than under one Gaussian of full covariance fitted to all points; a class's
    own mixtures are held against the same Gaussian.
    Raises ValueError for data that have no curve, for components beyond a tenth of the points, and for a basis that keeps too little variance.
    """

    name: ClassVar[str] = "gmm"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    settings: ClassVar[tuple[str, ...]] = (
        *("points", "dim", "covariance", "curve", "components", "per_class", "latent", "num_train", "seed"),
        *("restarts", "max_iter", "tolerance", "floor"),
    )

    def __init__(
        self,
        *,
        train_latents: LatentStore,
        heldout_latents: LatentStore,
        points: Each,
        dim: int,
        min_variance: float,
        covariance: Kind,
        curve: Sequence[int],
        components: int | Sequence[int] | None,
        allow_sparse: bool,
        per_class: bool,
        latent: Literal["mean", "sample"],
        num_train: int | None,  # images at most; None: all
        seed: int,
        restarts: int,
        max_iter: int,
        tolerance: float,
        floor: float,
        hold: float,  # GB
        device: torch.device,
    ):
        way: dict[str, Any] = {"each": points, "latent": latent, "seed": seed, "device": device}
        self.train = StoredPoints(train_latents, chosen(unmirrored(train_latents), num_train, seed=seed), **way)
        self.heldout = StoredPoints(heldout_latents, unmirrored(heldout_latents), **way)
        self.train_labels = train_latents.labels[self.train.images]  # (images,)
        self.heldout_labels = heldout_latents.labels[self.heldout.images]
        self.points = points
        self.dim = dim
        self.min_variance = min_variance
        self.way = Way(kind=covariance, num_restarts=restarts, max_iter=max_iter, tolerance=tolerance, floor=floor)
        self.per_class = per_class
        self.seed = seed
        self.hold = hold
        self.asked = list(curve) if components is None else listed(components)
        self.notes: list[str] = []
        self.sizes = self.affordable_sizes(by_hand=components is not None, allow_sparse=allow_sparse)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        choices = {"points": ("image", "token"), "covariance": KINDS, "latent": ("mean", "sample")}
        for key, known in choices.items():
            if settings[key] not in known:
                raise ValueError(f"job.{key} must be one of {', '.join(known)}, got {settings[key]!r}.")
        for key in ("dim", "restarts", "max_iter"):
            if settings[key] < 1:
                raise ValueError(f"job.{key} must be at least 1, got {settings[key]}.")
        if not 0 <= settings["min_variance"] <= 1:
            raise ValueError(f"job.min_variance is a share from 0 to 1, got {settings['min_variance']}.")
        for key in ("tolerance", "floor", "hold"):
            if settings[key] < 0:
                raise ValueError(f"job.{key} must not be negative, got {settings[key]}.")
        num_train = settings["num_train"]
        if num_train is not None and (not isinstance(num_train, int) or num_train < 2):
            raise ValueError(f"job.num_train must be a whole number of at least 2, or null for all, got {num_train!r}.")
        for key in ("curve", "components"):
            sizes = [] if settings[key] is None else listed(settings[key])
            whole = all(isinstance(size, int) and size >= 1 for size in sizes)
            if not whole or sizes != sorted(set(sizes)) or (not sizes and settings[key] is not None):
                raise ValueError(
                    f"job.{key} takes rising whole numbers of at least 1, for example [5,10,20], got {settings[key]}."
                )
        if settings["curve"] is None:
            raise ValueError("job.curve takes rising whole numbers of at least 1, got none.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again."""
        return (FIGURE, NUMBERS, MIXTURES)

    def affordable_sizes(self, *, by_hand: bool, allow_sparse: bool) -> list[int]:
        """The numbers of components that are fitted: those with ten points each at least, or what was asked for by hand and allowed."""
        count, sizes = len(self.train), affordable(self.asked, len(self.train))
        tenth = f"a tenth of the {count} training points is {count // POINTS_PER_COMPONENT}"
        if by_hand and sizes != self.asked:
            beyond = [size for size in self.asked if size not in sizes]
            if not allow_sparse:
                raise ValueError(
                    f"job.components={beyond} is too many: {tenth}. Ask for fewer, or say job.allow_sparse=true."
                )
            if max(beyond) > count:
                raise ValueError(
                    f"job.components={max(beyond)} is more than the {count} training points. Ask for fewer."
                )
            self.note(f"Sparse, as asked for: {', '.join(map(str, beyond))} components, and {tenth}.")
            return self.asked
        if not sizes:
            raise ValueError(
                f"No number of components fits: job.curve begins at {self.asked[0]}, and {tenth}. Give more images or smaller numbers."
            )
        if sizes != self.asked:
            self.note(f"The curve stops at {sizes[-1]} components: {tenth}.")
        return sizes

    def run(self, out: Path) -> dict[str, Estimate]:
        """Likelihoods with 95 % intervals over held-out images, criteria and scores; `out` gets the curve as a picture, all numbers and mixtures."""
        whitening = self.whitening()
        train, heldout = self.train.whitened(whitening), self.heldout.whitened(whitening)
        labels = self.labels() if self.per_class else []
        class_sizes = self.class_sizes(labels)
        labels = labels if class_sizes else []
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("fitting mixtures", total=len(self.sizes) + len(labels) * len(class_sizes))

            def fits(sizes: Sequence[int], mine: Points, others: Points) -> dict[int, Fitted]:
                found = {}
                for size in sizes:
                    found[size] = fitted(mine, others, num_components=size, way=self.way, seed=self.seed)
                    progress.advance(task)
                return found

            held_train, held_out = self.held(train), self.held(heldout)
            by_class = {}
            for label in labels:
                mine, members = train.of_images(self.train_labels == label), self.heldout_labels == label
                by_class[label] = OfClass(
                    len(mine), members, fits(class_sizes, self.held(mine), self.held(heldout.of_images(members)))
                )
            report = Report(
                whitening=whitening,
                kept_heldout=whitening.share_kept(self.heldout.blocks),
                num_train=len(train),
                per_image=train.per_image,
                single=single(held_train, held_out, floor=self.way.floor),
                by_size=fits(self.sizes, held_train, held_out),
                by_class=by_class,
                notes=self.notes,
            )
        self.look_at(report)
        contents = self.train.store.manifest.contents
        out.mkdir(parents=True, exist_ok=True)
        facts = {"tokenizer": contents.tokenizer, "data": contents.data, "points": self.points, "floor": self.way.floor}
        report.write(
            out,
            title=f"{contents.tokenizer} on {contents.data}: {self.way.kind} mixtures in {self.dim} dimensions",
            facts=facts,
        )
        return report.metrics()

    def whitening(self) -> Whitening:
        """The basis, made of the training part. Raises ValueError where it keeps less variance than it must."""
        found = whiten(self.train.blocks, dim=self.dim, rng=torch.Generator().manual_seed(self.seed))
        if found.variance_kept < self.min_variance:
            raise ValueError(
                f"job.dim={self.dim} directions keep {found.variance_kept:.1%} of the latents' variance, and {self.min_variance:.0%} are needed. "
                f"Raise job.dim (the latents have {self.train.dim} numbers), for every tokenizer that is compared, or lower job.min_variance."
            )
        return found

    def held(self, points: StoredPoints) -> Points:
        """The points in memory where they are few enough."""
        return points.held_below(self.hold * 1e9)

    def labels(self) -> list[int]:
        """The classes that have training and held-out images."""
        return sorted(set(self.train_labels.tolist()) & set(self.heldout_labels.tolist()))

    def class_sizes(self, labels: Sequence[int]) -> list[int]:
        """The numbers of components that every class can carry, and a sentence where that is not all."""
        if not labels:
            return []
        least = min(int((self.train_labels == label).sum()) for label in labels) * self.train.per_image
        sizes = affordable(self.sizes, least)
        if sizes != self.sizes:
            stops = f"stop at {sizes[-1]} components" if sizes else "are left out"
            self.note(
                f"The classes' own curves {stops}: a tenth of the {least} training points of the smallest is {least // POINTS_PER_COMPONENT}."
            )
        return sizes

    def look_at(self, report: Report) -> None:
        """Says which fits did not come to an end."""
        unfinished = [size for size, found in report.by_size.items() if not found.converged]
        unfinished += [
            f"{size} of class {label}"
            for label, own in report.by_class.items()
            for size, f in own.by_size.items()
            if not f.converged
        ]
        if unfinished:
            self.note(
                f"Not converged within {self.way.max_iter} iterations: {', '.join(map(str, unfinished))} components. Raise job.max_iter."
            )

    def note(self, sentence: str) -> None:
        """Tells a sentence, and keeps it beside the figures."""
        log.warning(sentence)
        self.notes.append(sentence)


def chosen(
    rows: Tensor,  # (n,)
    count: int | None,
    *,
    seed: int,
) -> Tensor:  # (m,)
    """At most `count` of the rows, drawn from the seed alone, in order."""
    if count is None or count >= len(rows):
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count].sort().values]


def listed(components: int | Sequence[int]) -> list[int]:
    """One number, or several."""
    return [components] if isinstance(components, int) else list(components)
