"""Job `gmm`: how well Gaussian mixtures describe a tokenizer's latents.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models (MAETok), 2025,
    https://arxiv.org/abs/2502.03444 (fig. 2, B.3)
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from ldbench.analysis.gmm.curve import (
    POINTS_PER_COMPONENT,
    FitSettings,
    FittedMixture,
    affordable_sizes,
    fit_mixture,
    fit_single_gaussian,
)
from ldbench.analysis.gmm.mixture import KINDS, Kind
from ldbench.analysis.gmm.points import Points
from ldbench.analysis.gmm.whitening import Whitening, whiten
from ldbench.core.estimate import Estimate
from ldbench.data.latents.store import LatentStore
from ldbench.jobs._latent_points import ChannelUnits, PointUnit, StoredPoints, subsample, unflipped_rows
from ldbench.jobs._mixture_report import FIGURE, MIXTURES, NUMBERS, ClassMixtures, MixtureReport
from ldbench.runtime.progress import progress

log = logging.getLogger(__name__)


class Gmm:
    """Fits mixtures with a growing number of components to training latents, and measures their likelihood of held-out
    ones.

    Points are latents with each channel in units of its standard deviation over the training split, as generators
    learn them, in the PCA-whitened basis of that split. So neither a shift nor a scaling of any channel changes a
    number; a mixing of channels does, since it changes what is a channel. Likelihoods are in nats in this basis. The
    score is the NLL per dimension under one Gaussian of full covariance fitted to all points, minus that under the
    mixture; class mixtures are compared with the same Gaussian. Raises ValueError for too few points for the curve, for
    more components than a tenth of the points, and for a basis that keeps too little variance.
    """

    name: ClassVar[str] = "gmm"
    revision: ClassVar[int] = 2
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
        points: PointUnit,
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
        hold: float,  # GB of points loaded into memory
        device: torch.device,
    ):
        units = ChannelUnits.of(train_latents, latent)
        settings: dict[str, Any] = {
            **{"unit": points, "channels": units, "latent": latent, "seed": seed, "device": device}
        }
        self.train = StoredPoints(
            train_latents, subsample(unflipped_rows(train_latents), num_train, seed=seed), **settings
        )
        self.heldout = StoredPoints(heldout_latents, unflipped_rows(heldout_latents), **settings)
        self.train_labels = train_latents.labels[self.train.images]  # (images,)
        self.heldout_labels = heldout_latents.labels[self.heldout.images]
        self.points = points
        self.dim = dim
        self.min_variance = min_variance
        self.fit_settings = FitSettings(
            kind=covariance, num_restarts=restarts, max_iter=max_iter, tolerance=tolerance, floor=floor
        )
        self.per_class = per_class
        self.seed = seed
        self.hold = hold
        self.requested = list(curve) if components is None else as_list(components)
        self.notes: list[str] = []
        self.sizes = self.select_sizes(explicit=components is not None, allow_sparse=allow_sparse)

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
            raise ValueError(f"job.min_variance must be a share from 0 to 1, got {settings['min_variance']}.")
        for key in ("tolerance", "floor", "hold"):
            if settings[key] < 0:
                raise ValueError(f"job.{key} must not be negative, got {settings[key]}.")
        num_train = settings["num_train"]
        if num_train is not None and (not isinstance(num_train, int) or num_train < 2):
            raise ValueError(f"job.num_train must be a whole number of at least 2, or null for all, got {num_train!r}.")
        for key in ("curve", "components"):
            sizes = [] if settings[key] is None else as_list(settings[key])
            whole = all(isinstance(size, int) and size >= 1 for size in sizes)
            if not whole or sizes != sorted(set(sizes)) or (not sizes and settings[key] is not None):
                raise ValueError(
                    f"job.{key} takes ascending integers of at least 1, for example [5,10,20], got {settings[key]}."
                )
        if settings["curve"] is None:
            raise ValueError("job.curve takes ascending integers of at least 1, got none.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated."""
        return (FIGURE, NUMBERS, MIXTURES)

    def select_sizes(self, *, explicit: bool, allow_sparse: bool) -> list[int]:
        """The numbers of components to fit: those with at least ten points per component, or all explicit ones with
        `allow_sparse`.
        """
        count, sizes = len(self.train), affordable_sizes(self.requested, len(self.train))
        tenth = f"a tenth of the {count} training points is {count // POINTS_PER_COMPONENT}"
        if explicit and sizes != self.requested:
            too_many = [size for size in self.requested if size not in sizes]
            if not allow_sparse:
                raise ValueError(
                    f"job.components={too_many} is too many: {tenth}. Choose fewer, or set job.allow_sparse=true."
                )
            if max(too_many) > count:
                raise ValueError(
                    f"job.components={max(too_many)} is more than the {count} training points. Choose fewer."
                )
            self.note(f"Sparse as requested: {', '.join(map(str, too_many))} components, and {tenth}.")
            return self.requested
        if not sizes:
            raise ValueError(
                f"No number of components is possible: job.curve starts at {self.requested[0]}, and {tenth}. "
                "Use more images or smaller numbers."
            )
        if sizes != self.requested:
            self.note(f"The curve stops at {sizes[-1]} components: {tenth}.")
        return sizes

    def run(self, out: Path) -> dict[str, Estimate]:
        """Likelihoods with 95 % intervals over held-out images, criteria and scores; writes the curve, all numbers
        and the mixtures to `out`.
        """
        whitening = self.whitening()
        train, heldout = self.train.whitened(whitening), self.heldout.whitened(whitening)
        labels = self.labels() if self.per_class else []
        class_sizes = self.class_sizes(labels)
        labels = labels if class_sizes else []
        total = len(self.sizes) + len(labels) * len(class_sizes)
        with progress("fitting mixtures", total=total, done=0) as advance:

            def fit_all(sizes: Sequence[int], fitting: Points, evaluation: Points) -> dict[int, FittedMixture]:
                mixtures = {}
                for size in sizes:
                    settings: dict[str, Any] = {
                        "num_components": size,
                        "settings": self.fit_settings,
                        "seed": self.seed,
                    }
                    mixtures[size] = fit_mixture(fitting, evaluation, **settings)
                    advance(1)
                return mixtures

            train_points, heldout_points = self.loaded(train), self.loaded(heldout)
            by_class = {}
            for label in labels:
                in_class, members = train.select_images(self.train_labels == label), self.heldout_labels == label
                mixtures = fit_all(class_sizes, self.loaded(in_class), self.loaded(heldout.select_images(members)))
                by_class[label] = ClassMixtures(len(in_class), members, mixtures)
            report = MixtureReport(
                whitening=self.of_latents(whitening),
                kept_heldout=whitening.variance_share(self.heldout.blocks),
                num_train=len(train),
                per_image=train.per_image,
                single=fit_single_gaussian(train_points, heldout_points, floor=self.fit_settings.floor),
                by_size=fit_all(self.sizes, train_points, heldout_points),
                by_class=by_class,
                notes=self.notes,
            )
        self.note_unconverged(report)
        contents = self.train.store.manifest.contents
        out.mkdir(parents=True, exist_ok=True)
        properties = {
            "tokenizer": contents.tokenizer,
            "data": contents.data,
            "points": self.points,
            "floor": self.fit_settings.floor,
        }
        description = f"{self.fit_settings.kind} mixtures in {self.dim} dimensions"
        report.write(out, title=f"{contents.tokenizer} on {contents.data}: {description}", properties=properties)
        return report.metrics()

    def whitening(self) -> Whitening:
        """The basis of the training split. Raises ValueError if it keeps less than `min_variance`."""
        whitening = whiten(self.train.blocks, dim=self.dim, rng=torch.Generator().manual_seed(self.seed))
        if whitening.variance_kept < self.min_variance:
            raise ValueError(
                f"job.dim={self.dim} directions keep {whitening.variance_kept:.1%} of the latents' variance, and "
                f"job.min_variance={self.min_variance:.0%} are required. "
                f"Raise job.dim (the latents have {self.train.dim} numbers), for all compared tokenizers, or lower "
                "job.min_variance."
            )
        return whitening

    def of_latents(self, whitening: Whitening) -> Whitening:
        """The basis for latents as they are stored."""
        repeats = self.train.dim // len(self.train.channels.mean)
        mean, std = (
            value.to(whitening.mean).repeat(repeats) for value in (self.train.channels.mean, self.train.channels.std)
        )
        return whitening.of_unscaled(mean, std)

    def loaded(self, points: StoredPoints) -> Points:
        """The points loaded into memory if they fit into `hold`."""
        return points.loaded_below(self.hold * 1e9)

    def labels(self) -> list[int]:
        """The classes that have training and held-out images."""
        return sorted(set(self.train_labels.tolist()) & set(self.heldout_labels.tolist()))

    def class_sizes(self, labels: Sequence[int]) -> list[int]:
        """The numbers of components with enough points in every class; adds a note if these are not all."""
        if not labels:
            return []
        smallest = min(int((self.train_labels == label).sum()) for label in labels) * self.train.per_image
        sizes = affordable_sizes(self.sizes, smallest)
        if sizes != self.sizes:
            stops = f"stop at {sizes[-1]} components" if sizes else "are left out"
            self.note(
                f"The curves of the classes {stops}: a tenth of the {smallest} training points of the smallest is "
                f"{smallest // POINTS_PER_COMPONENT}."
            )
        return sizes

    def note_unconverged(self, report: MixtureReport) -> None:
        """Notes which fits have not converged."""
        unconverged = [str(size) for size, mixture in report.by_size.items() if not mixture.converged]
        unconverged += [
            f"{size} of class {label}"
            for label, mixtures in report.by_class.items()
            for size, mixture in mixtures.by_size.items()
            if not mixture.converged
        ]
        if unconverged:
            self.note(
                f"Not converged within {self.fit_settings.max_iter} iterations: "
                f"{', '.join(unconverged)} components. Raise job.max_iter."
            )

    def note(self, sentence: str) -> None:
        """Logs a warning, and adds it to the notes of the report."""
        log.warning(sentence)
        self.notes.append(sentence)


def as_list(components: int | Sequence[int]) -> list[int]:
    """A number or a sequence of numbers as a list."""
    return [components] if isinstance(components, int) else list(components)
