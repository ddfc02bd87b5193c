"""What fitted mixtures come to: figures with intervals over images, a picture, and files of all numbers and parameters."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldbench.analysis.gmm.curve import Fitted
from ldbench.analysis.gmm.figure import Curve, draw
from ldbench.analysis.gmm.mixture import Mixture
from ldbench.analysis.gmm.whitening import Whitening
from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import normal_mean
from ldbench.io.safetensors_io import write_tensors

FIGURE, NUMBERS, MIXTURES = "curve.png", "gmm.json", "gmm.safetensors"


@dataclass(frozen=True)
class OfClass:
    """The mixtures of one label's points alone."""

    num_train: int  # points
    members: Tensor  # (images,) bool: which held-out images have the label
    by_size: Mapping[int, Fitted]


@dataclass(frozen=True)
class Report:
    """All that was fitted in one basis, and measured on the same held-out points."""

    whitening: Whitening
    kept_heldout: float  # the share of the held-out latents' variance in the basis
    num_train: int  # points
    per_image: int  # points of an image
    single: Fitted  # one Gaussian of full covariance
    by_size: Mapping[int, Fitted]  # number of components -> mixture of all points
    by_class: Mapping[int, OfClass]  # label -> its own
    notes: Sequence[str]

    @property
    def dim(self) -> int:
        return self.whitening.dim

    @property
    def class_sizes(self) -> list[int]:
        """The numbers of components of the classes' mixtures, the same for all."""
        return list(next(iter(self.by_class.values())).by_size) if self.by_class else []

    def costs(self, fitted: Fitted) -> Tensor:  # (images,) float64
        """Nats per dimension of each held-out image: the mean over its points."""
        return fitted.heldout_nll.unflatten(0, (-1, self.per_image)).mean(dim=1) / self.dim

    def class_costs(self, size: int) -> tuple[Tensor, Tensor]:
        """(images,) twice: what each held-out image costs under the mixture of its own class, and under one Gaussian of all points."""
        single = self.costs(self.single)
        pairs = [(self.costs(own.by_size[size]), single[own.members]) for own in self.by_class.values()]
        own, one = zip(*pairs, strict=True)
        return torch.cat(own), torch.cat(one)

    def metrics(self) -> dict[str, Estimate]:
        """The figures by name."""
        single = self.costs(self.single)
        found = {
            "gmm/variance_kept": Estimate(self.whitening.variance_kept),
            "gmm/variance_kept_heldout": Estimate(self.kept_heldout),
            "gmm/single/nll_per_dim": normal_mean(single),
        }
        for size, fitted in self.by_size.items():
            costs = self.costs(fitted)
            found |= {
                f"gmm/nll_per_dim/k={size}": normal_mean(costs),
                f"gmm/train_nll_per_dim/k={size}": Estimate(fitted.train_nll / self.dim),
                f"gmm/score/k={size}": normal_mean(single - costs),
                f"gmm/bic/k={size}": Estimate(fitted.bic),
                f"gmm/aic/k={size}": Estimate(fitted.aic),
                f"gmm/effective_components/k={size}": Estimate(fitted.mixture.effective_components().item()),
            }
        for size in self.class_sizes:
            own, one = self.class_costs(size)
            found |= {
                f"gmm/per_class/nll_per_dim/k={size}": normal_mean(own),
                f"gmm/per_class/score/k={size}": normal_mean(one - own),
            }
        return found

    def write(self, out: Path, *, title: str, facts: Mapping[str, Any]) -> None:
        """The mixtures and their basis, all numbers, and the picture; the picture last."""
        tensors = {"whitening.mean": self.whitening.mean, "whitening.basis": self.whitening.basis}
        for name, mixture in {
            "single": self.single.mixture,
            **{f"k={size}": fitted.mixture for size, fitted in self.by_size.items()},
        }.items():
            tensors |= {f"{name}.{part}": value for part, value in parts_of(mixture).items()}
        write_tensors({name: value.float() for name, value in tensors.items()}, out / MIXTURES)
        (out / NUMBERS).write_text(json.dumps(self.numbers(facts), indent=2) + "\n")
        self.draw(out / FIGURE, title=title)

    def numbers(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """All numbers, as JSON has them."""
        return {
            **facts,
            "dim": self.dim,
            "variance_kept": self.whitening.variance_kept,
            "variance_kept_heldout": self.kept_heldout,
            "num_train_points": self.num_train,
            "num_heldout_points": len(self.single.heldout_nll),
            "points_per_image": self.per_image,
            "notes": list(self.notes),
            "single": told(self.single),
            "curve": [told(fitted) for fitted in self.by_size.values()],
            "per_class": {
                label: {"num_train_points": own.num_train, "curve": [told(fitted) for fitted in own.by_size.values()]}
                for label, own in self.by_class.items()
            },
        }

    def draw(self, path: Path, *, title: str) -> None:
        """The curves of all points, and of the classes, to a PNG."""
        single, sizes = self.costs(self.single), list(self.by_size)
        costs = {size: self.costs(fitted) for size, fitted in self.by_size.items()}
        curves = [
            Curve(
                label="all points",
                sizes=sizes,
                heldout=[normal_mean(costs[size]) for size in sizes],
                train=[self.by_size[size].train_nll / self.dim for size in sizes],
                score=[normal_mean(single - costs[size]) for size in sizes],
                single=single.mean().item(),
            )
        ]
        if self.class_sizes:
            pairs = [self.class_costs(size) for size in self.class_sizes]
            curves.append(
                Curve(
                    label="each class its own",
                    sizes=self.class_sizes,
                    heldout=[normal_mean(own) for own, _ in pairs],
                    train=[self.class_train(size) for size in self.class_sizes],
                    score=[normal_mean(one - own) for own, one in pairs],
                    single=None,
                )
            )
        bic = {size: fitted.bic / self.num_train for size, fitted in self.by_size.items()}
        draw(curves, bic, title=title, note=" ".join(self.notes), out=path)

    def class_train(self, size: int) -> float:
        """The mean training NLL per dimension over the points of all classes."""
        classes = self.by_class.values()
        return (
            sum(own.num_train * own.by_size[size].train_nll for own in classes)
            / sum(own.num_train for own in classes)
            / self.dim
        )


def parts_of(mixture: Mixture) -> dict[str, Tensor]:
    """The parameters of the one mixture that was chosen, without the axis of restarts."""
    return {"weights": mixture.weights[0], "means": mixture.means[0], "covariances": mixture.covariances[0]}


def told(fitted: Fitted) -> dict[str, Any]:
    """A fitted mixture in numbers; likelihoods in nats per point."""
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
