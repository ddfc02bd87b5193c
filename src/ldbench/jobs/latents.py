"""Job `latents`: statistics of latents alone that may predict how well generators learn them."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ldbench.analysis.dct_energy import dct_energy, share_beyond
from ldbench.analysis.distance_similarity import distance_similarity
from ldbench.analysis.rms_contrast import rms_contrast
from ldbench.analysis.velocity_variance import (
    Structure,
    choose_structure,
    full_spectrum,
    kronecker_spectrum,
    smallest_class,
    velocity_variance,
)
from ldbench.core.estimate import Estimate
from ldbench.core.intervals import student_mean
from ldbench.core.strata import combine_strata
from ldbench.data.latents.store import LatentStore
from ldbench.jobs._latent_points import BLOCK, ChannelUnits, StoredPoints, subsample, unflipped_rows

log = logging.getLogger(__name__)

COVARIANCES = ("auto", "full", "kronecker")
CONVERGED = 0.01  # relative change of the velocity variance in the last iteration, above which a warning is logged


class Latents:
    """The velocity variance of training latents (VIV), how the similarity of tokens falls with their distance (LDS,
    CDS), the contrast of tokens (RMSC) and the share of energy at high frequencies.

    Each channel is in units of its standard deviation around its mean over all training latents, as generators learn
    them. Intervals are over training images, for these weights. Lower or higher is not better in itself: latents
    without information have the lowest velocity variance.
    """

    name: ClassVar[str] = "latents"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    settings: ClassVar[tuple[str, ...]] = (
        *("latent", "covariance", "iterations", "ridge", "images_per_class"),
        *("num_images", "far", "line", "frequencies", "seed"),
    )

    def __init__(
        self,
        *,
        train_latents: LatentStore,
        latent: Literal["mean", "sample"],
        covariance: Literal["auto", "full", "kronecker"],
        iterations: int,
        ridge: float,
        images_per_class: int | None,
        num_images: int | None,
        far: float,
        line: float,
        frequencies: Sequence[float],
        seed: int,
        device: torch.device,
    ):
        self.spec = train_latents.latent
        self.points = StoredPoints(
            train_latents,
            unflipped_rows(train_latents),
            unit="image",
            channels=ChannelUnits.of(train_latents, latent),
            latent=latent,
            seed=seed,
            device=device,
        )
        self.y = train_latents.labels[self.points.images]  # (images,)
        self.covariance = covariance
        self.iterations = iterations
        self.ridge = ridge
        self.images_per_class = images_per_class
        self.num_images = num_images
        self.far = far
        self.line = line
        self.frequencies = frequencies
        self.seed = seed

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key, known in {"latent": ("mean", "sample"), "covariance": COVARIANCES}.items():
            if settings[key] not in known:
                raise ValueError(f"job.{key} must be one of {', '.join(known)}, got {settings[key]!r}.")
        for key, minimum in {"images_per_class": 3, "num_images": 2}.items():
            if settings[key] is not None and settings[key] < minimum:
                raise ValueError(f"job.{key} must be at least {minimum}, or null for all, got {settings[key]}.")
        if settings["iterations"] < 1 or settings["seed"] < 0:
            raise ValueError(
                f"job.iterations must be at least 1 and job.seed at least 0, got {settings['iterations']} and "
                f"{settings['seed']}."
            )
        if not 0 < settings["ridge"] < 1:
            raise ValueError(f"job.ridge must be above 0 and below 1, got {settings['ridge']}.")
        for key in ("far", "line"):
            if not 0 < settings[key] <= 1:
                raise ValueError(f"job.{key} must be a share above 0 and at most 1, got {settings[key]}.")
        frequencies = settings["frequencies"]
        if len(set(frequencies)) < len(frequencies) or not all(0 <= rho < 1 for rho in frequencies):
            raise ValueError(
                f"job.frequencies must be different shares from 0 and below 1, such as [0.25,0.5], got {frequencies}."
            )

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated: none."""
        return ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """All metrics that apply, with 95 % intervals over images."""
        metrics = self.velocity() | self.tokens()
        return {f"latents/{name}": estimate for name, estimate in metrics.items()}

    @torch.no_grad()
    def velocity(self) -> dict[str, Estimate]:
        """The velocity variance per number of a latent, averaged over classes; the same times the square root of these
        numbers, to compare latents of different sizes; and the share of classes with a Kronecker covariance.
        """
        rng = torch.Generator().manual_seed(self.seed)
        labels, classes, structures, needed = self.y.unique().tolist(), [], [], 0
        changes: list[float] = []
        for label in labels:
            indices = subsample((self.y == label).nonzero().squeeze(1), self.images_per_class, seed=self.seed)
            structure = self.structure(len(indices))
            smallest = smallest_class(structure, self.spec.num_tokens, self.spec.channels)
            if len(indices) < smallest:
                needed = max(needed, smallest)
                continue
            structures.append(structure)
            spectrum = full_spectrum if structure == "full" else partial(self.kronecker_spectrum, changes)
            classes.append(velocity_variance(self.read(indices), spectrum, rng=rng))
        if needed:
            log.warning(
                "The velocity variance leaves out %d of %d classes: their covariances need %d images each.",
                len(labels) - len(classes),
                len(labels),
                needed,
            )
        if max(changes, default=0.0) > CONVERGED:
            log.warning(
                "The last iteration changed the velocity variance of a class by up to %.1f %%. Raise job.iterations.",
                100 * max(changes),
            )
        if not classes:
            return {}
        mean = combine_strata(classes, [1 / len(classes)] * len(classes))
        return {
            "viv": mean,
            "viv_scaled": mean.times((self.spec.num_tokens * self.spec.channels) ** 0.5),
            "viv_kronecker": Estimate(structures.count("kronecker") / len(structures)),
        }

    def structure(self, num_images: int) -> Structure:
        """The structure of the covariance of a class of so many images."""
        if self.covariance != "auto":
            return self.covariance
        return choose_structure(num_images, self.spec.num_tokens, self.spec.channels)

    def kronecker_spectrum(self, changes: list[float], z: Tensor) -> Tensor:  # (n, N, C) -> (N C,)
        """The eigenvalues of a Kronecker covariance; adds the relative change in the last iteration to `changes`."""
        found = kronecker_spectrum(z, iterations=self.iterations, ridge=self.ridge)
        changes.append(found.change)
        return found.eigenvalues

    @torch.no_grad()
    def tokens(self) -> dict[str, Estimate]:
        """What each image's tokens tell, averaged over images; of latents on a grid also by distance and frequency."""
        chosen = subsample(torch.arange(len(self.points.images)), self.num_images, seed=self.seed)
        size = max(1, BLOCK // (4 * self.points.dim))  # padded maps are four times as large
        parts = [self.tokens_of(self.read(rows)) for rows in chosen.split(size)]
        return {name: student_mean(torch.cat([part[name] for part in parts])) for name in parts[0]}

    def tokens_of(self, z: Tensor) -> dict[str, Tensor]:  # (b, N, C) -> (b,) each
        """The numbers of each image."""
        values: dict[str, Tensor | None] = {"rmsc": rms_contrast(z)}
        if self.spec.grid is not None and self.spec.num_tokens > 1:
            maps = self.spec.to_map(z)
            similarity, energy = distance_similarity(maps), dct_energy(maps)
            values |= {"lds": similarity.local(self.far), "cds": similarity.cross(self.line)}
            values |= {f"dct_energy/rho={rho:g}": share_beyond(energy, rho) for rho in self.frequencies}
        return {name: value.cpu() for name, value in values.items() if value is not None}

    def read(self, indices: Tensor) -> Tensor:  # (b,) -> (b, N, C) float32
        """Latents of some images."""
        z = [self.points.read(part) for part in self.points.images[indices].split(max(1, BLOCK // self.points.dim))]
        return torch.cat(z).unflatten(1, (self.spec.num_tokens, self.spec.channels))
