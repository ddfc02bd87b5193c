"""LDMAE's perturbation of the latents of a whole split, with every metric and distance of a protocol at each level."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldbench.analysis.smoothness import curve, perturb
from ldbench.core.estimate import Estimate
from ldbench.core.intervals import student_mean
from ldbench.core.pixels import PixelRule, from_uint8, sheet, to_uint8
from ldbench.jobs._standardized_tokenizer import StandardizedTokenizer
from ldbench.results.panels import Curve, draw_curves
from ldbench.sampling.noise import NoiseStream

log = logging.getLogger(__name__)

Metric = Callable[[Tensor, Tensor], Tensor]  # uint8 images and reconstructions -> (B,) float64
Distance = Callable[[Tensor, Tensor], float]  # features (n, D) and (m, D) of two sets of images
NUM_SHOWN = 8  # images in a figure


class Extractor(Protocol):
    """A feature extractor for distances between sets of images."""

    def to(self, device: torch.device) -> "Extractor":
        """Itself, moved to a device."""

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, D) float32."""


@dataclass(frozen=True)
class Perturbation:
    """Decodes each image from its posterior mean with noise of `levels` standard deviations, the same noise at all
    levels.
    """

    codec: StandardizedTokenizer
    metrics: Mapping[str, Metric]
    extractors: Mapping[str, Extractor]
    distances: Mapping[str, Distance]
    pixel_rule: PixelRule
    levels: Sequence[float]
    seed: int

    def run(self, batches: Iterable[Any], out: Path) -> dict[str, Estimate]:
        """Each metric and distance at each level, with the slope and the area of its curve. Writes figures to `out`."""
        values: dict[str, list[list[Tensor]]] = {name: [[] for _ in self.levels] for name in self.metrics}
        # the originals first, then each level
        features: dict[str, list[list[Tensor]]] = {name: [[] for _ in (None, *self.levels)] for name in self.extractors}
        done = 0
        for images, _ in batches:
            originals, perturbed = to_uint8(images, self.pixel_rule), self.decoded(images, first=done)
            for name, metric in self.metrics.items():
                for level, recon in zip(values[name], perturbed, strict=True):
                    level.append(metric(originals, recon))
            for name, sets in features.items():
                for batches_of_set, pixels in zip(sets, (originals, *perturbed), strict=True):
                    batches_of_set.append(self.extract(name, pixels).cpu())
            if not done:
                save(
                    sheet([from_uint8(pixels[:NUM_SHOWN]) for pixels in (originals, *perturbed)]), out / "perturbed.png"
                )
            done += len(images)
        by_level = {name: torch.stack([torch.cat(parts) for parts in levels]) for name, levels in values.items()}
        by_level |= dict(self.distances_by_level(features))
        curves = {
            name: Curve(self.levels, [student_mean(level) for level in levels]) for name, levels in by_level.items()
        }
        if curves:
            draw_curves(curves, out / "perturbation.png", xlabel="noise on the latents, standard deviations")
        metrics = {
            f"{name}/eps={eps:g}": estimate
            for name, drawn in curves.items()
            for eps, estimate in zip(drawn.x, drawn.y, strict=True)
        }
        return metrics | dict(self.curve_statistics(by_level))

    def decoded(
        self,
        images: Tensor,  # (B, 3, H, W)
        *,
        first: int,  # index of images[0] in the split
    ) -> list[Tensor]:  # (B, 3, H, W) uint8 each
        """Images decoded from the latents of a batch at each level."""
        mean = self.codec.encode(images) * self.codec.unit
        noise = NoiseStream(self.seed, range(first, first + len(mean))).normal(0, mean.shape).to(mean)
        perturbed = (perturb(mean, eps=eps, noise=noise, sigma=self.codec.sigma) for eps in self.levels)
        return [to_uint8(self.codec.tokenizer.decode(z).float().cpu(), self.pixel_rule) for z in perturbed]

    def distances_by_level(self, features: Mapping[str, Sequence[Sequence[Tensor]]]) -> Iterator[tuple[str, Tensor]]:
        """(levels, 1): each distance of perturbed images to the originals, on the features of each extractor."""
        for extractor, sets in features.items():
            originals, *levels = (torch.cat(list(batches)) for batches in sets)
            for name, distance in self.distances.items():
                yield (
                    f"r{name}_{extractor}",
                    torch.tensor([[distance(level, originals)] for level in levels], dtype=torch.float64),
                )

    def curve_statistics(self, by_level: Mapping[str, Tensor]) -> Iterator[tuple[str, Estimate]]:
        """Slope and area of each curve whose values are finite; where larger values are better, the area also relative
        to the value without noise, since tokenizers that reconstruct better have more to lose.
        """
        for name, levels in by_level.items():
            if not torch.isfinite(levels).all():
                log.info("%s is infinite for a perfect reconstruction: its curve has no slope and no area.", name)
                continue
            statistics = curve(self.levels, levels)
            yield f"{name}/slope", student_mean(statistics.slope)
            yield f"{name}/area", student_mean(statistics.area)
            start = levels[0].double()
            if self.levels[0] == 0 and getattr(self.metrics.get(name), "higher_is_better", None) and start.mean() > 0:
                # of the means; linearized for the interval, so that images count by how well they start
                ratio = (statistics.area.mean() / start.mean()).item()
                yield f"{name}/relative_area", student_mean(ratio + (statistics.area - ratio * start) / start.mean())

    def extract(self, extractor: str, images: Tensor) -> Tensor:  # (B, 3, H, W) uint8 -> (B, D)
        """The features of an extractor for a batch."""
        return self.extractors[extractor].to(self.codec.device).features(images.to(self.codec.device))

    def views(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Functions from images in [-1, 1] to the features of each extractor, by name."""
        return {name: partial(self.view, name) for name in self.extractors}

    def view(self, extractor: str, images: Tensor) -> Tensor:  # (B, 3, H, W) in [-1, 1] -> (B, D)
        """The features of an extractor for images as uint8."""
        return self.extract(extractor, to_uint8(images.cpu(), self.pixel_rule))


def save(picture: Tensor, path: Path) -> None:  # (3, H, W) uint8
    """Writes an image as PNG."""
    Image.fromarray(rearrange(picture, "c h w -> h w c").numpy()).save(path)
