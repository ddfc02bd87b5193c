"""Report on fitted mixtures: metrics with intervals over images, a figure, and files of all numbers and parameters."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldbench.analysis.gmm.curve import FittedMixture
from ldbench.analysis.gmm.figure import Curve, draw
from ldbench.analysis.gmm.mixture import Mixture
from ldbench.analysis.gmm.whitening import Whitening
from ldbench.core.estimate import Estimate
from ldbench.core.intervals import student_mean
from ldbench.io.safetensors_io import write_tensors

FIGURE, NUMBERS, MIXTURES = "curve.png", "gmm.json", "gmm.safetensors"


@dataclass(frozen=True)
class ClassMixtures:
    """Mixtures fitted to the points of one label."""

    num_train: int  # points
    members: Tensor  # (images,) bool: which held-out images have the label
    by_size: Mapping[int, FittedMixture]


@dataclass(frozen=True)
class MixtureReport:
    """All mixtures that were fitted in one basis, with their likelihoods of the same held-out points."""

    whitening: Whitening
    kept_heldout: float  # the share of the held-out latents' variance in the basis
    num_train: int  # points
    per_image: int  # points of an image
    single: FittedMixture  # one Gaussian of full covariance
    by_size: Mapping[int, FittedMixture]  # number of components -> mixture of all points
    by_class: Mapping[int, ClassMixtures]  # by label
    notes: Sequence[str]

    @property
    def dim(self) -> int:
        """The number of dimensions of the basis."""
        return self.whitening.dim

    @property
    def class_sizes(self) -> list[int]:
        """The numbers of components of the class mixtures, the same for all classes."""
        return list(next(iter(self.by_class.values())).by_size) if self.by_class else []

    def image_nll(self, fitted: FittedMixture) -> Tensor:  # (images,) float64
        """Nats per dimension of each held-out image: the mean over its points."""
        return fitted.heldout_nll.unflatten(0, (-1, self.per_image)).mean(dim=1) / self.dim

    def class_nll(self, size: int) -> tuple[Tensor, Tensor]:
        """The NLL of each held-out image under the mixture of its class, and under one Gaussian of all points;
        (images,) each.
        """
        single = self.image_nll(self.single)
        pairs = [
            (self.image_nll(mixtures.by_size[size]), single[mixtures.members]) for mixtures in self.by_class.values()
        ]
        by_class, by_single = zip(*pairs, strict=True)
        return torch.cat(by_class), torch.cat(by_single)

    def metrics(self) -> dict[str, Estimate]:
        """The metrics by name."""
        single = self.image_nll(self.single)
        metrics = {
            "gmm/variance_kept": Estimate(self.whitening.variance_kept),
            "gmm/variance_kept_heldout": Estimate(self.kept_heldout),
            "gmm/single/nll_per_dim": student_mean(single),
        }
        for size, fitted in self.by_size.items():
            nll = self.image_nll(fitted)
            metrics |= {
                f"gmm/nll_per_dim/k={size}": student_mean(nll),
                f"gmm/train_nll_per_dim/k={size}": Estimate(fitted.train_nll / self.dim),
                f"gmm/score/k={size}": student_mean(single - nll),
                f"gmm/bic/k={size}": Estimate(fitted.bic),
                f"gmm/aic/k={size}": Estimate(fitted.aic),
                f"gmm/effective_components/k={size}": Estimate(fitted.mixture.effective_components().item()),
            }
        for size in self.class_sizes:
            by_class, by_single = self.class_nll(size)
            metrics |= {
                f"gmm/per_class/nll_per_dim/k={size}": student_mean(by_class),
                f"gmm/per_class/score/k={size}": student_mean(by_single - by_class),
            }
        return metrics

    def write(self, out: Path, *, title: str, properties: Mapping[str, Any]) -> None:
        """Writes the mixtures and their basis, all numbers, and last the figure."""
        tensors = {"whitening.mean": self.whitening.mean, "whitening.basis": self.whitening.basis}
        for name, mixture in {
            "single": self.single.mixture,
            **{f"k={size}": fitted.mixture for size, fitted in self.by_size.items()},
        }.items():
            tensors |= {f"{name}.{part}": value for part, value in parameters_of(mixture).items()}
        write_tensors({name: value.float() for name, value in tensors.items()}, out / MIXTURES)
        (out / NUMBERS).write_text(json.dumps(self.numbers(properties), indent=2) + "\n", encoding="utf-8")
        self.draw(out / FIGURE, title=title)

    def numbers(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            **properties,
            "dim": self.dim,
            "variance_kept": self.whitening.variance_kept,
            "variance_kept_heldout": self.kept_heldout,
            "num_train_points": self.num_train,
            "num_heldout_points": len(self.single.heldout_nll),
            "points_per_image": self.per_image,
            "notes": list(self.notes),
            "single": describe_fit(self.single),
            "curve": [describe_fit(fitted) for fitted in self.by_size.values()],
            "per_class": {
                label: {
                    "num_train_points": mixtures.num_train,
                    "curve": [describe_fit(fitted) for fitted in mixtures.by_size.values()],
                }
                for label, mixtures in self.by_class.items()
            },
        }

    def draw(self, path: Path, *, title: str) -> None:
        """Draws the curves of all points and of the class mixtures to a PNG."""
        single, sizes = self.image_nll(self.single), list(self.by_size)
        nll = {size: self.image_nll(fitted) for size, fitted in self.by_size.items()}
        curves = [
            Curve(
                label="all points",
                sizes=sizes,
                heldout=[student_mean(nll[size]) for size in sizes],
                train=[self.by_size[size].train_nll / self.dim for size in sizes],
                score=[student_mean(single - nll[size]) for size in sizes],
                single=single.mean().item(),
            )
        ]
        if self.class_sizes:
            pairs = [self.class_nll(size) for size in self.class_sizes]
            curves.append(
                Curve(
                    label="one mixture per class",
                    sizes=self.class_sizes,
                    heldout=[student_mean(by_class) for by_class, _ in pairs],
                    train=[self.class_train(size) for size in self.class_sizes],
                    score=[student_mean(by_single - by_class) for by_class, by_single in pairs],
                    single=None,
                )
            )
        bic = {size: fitted.bic / self.num_train for size, fitted in self.by_size.items()}
        draw(curves, bic, title=title, note=" ".join(self.notes), out=path)

    def class_train(self, size: int) -> float:
        """The mean training NLL per dimension of class mixtures over the points of all classes."""
        classes = self.by_class.values()
        return (
            sum(mixtures.num_train * mixtures.by_size[size].train_nll for mixtures in classes)
            / sum(mixtures.num_train for mixtures in classes)
            / self.dim
        )


def parameters_of(mixture: Mixture) -> dict[str, Tensor]:
    """The parameters of a single mixture, without the axis of restarts."""
    return {"weights": mixture.weights[0], "means": mixture.means[0], "covariances": mixture.covariances[0]}


def describe_fit(fitted: FittedMixture) -> dict[str, Any]:
    """The numbers of a fitted mixture; likelihoods in nats per point."""
    return {
        "k": fitted.mixture.num_components,
        "covariance": fitted.mixture.kind,
        "heldout_nll": fitted.heldout_nll.mean().item() if len(fitted.heldout_nll) else None,
        "num_heldout_points": len(fitted.heldout_nll),
        "train_nll": fitted.train_nll,
        "bic": fitted.bic,
        "aic": fitted.aic,
        "num_parameters": fitted.mixture.num_parameters(),
        "effective_components": fitted.mixture.effective_components().item(),
        "iterations": fitted.iterations,
        "converged": fitted.converged,
    }
