"""LDMAE's perturbation of the latents of a whole split, with every metric and distance of a protocol at every level."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldbench.analysis.smoothness import curve, perturb
from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import normal_mean
from ldbench.core.pixels import PixelRule, from_uint8, sheet, to_uint8
from ldbench.jobs._standardized_tokenizer import Standardised, drawn_noise
from ldbench.results.panels import Curve, draw_curves

log = logging.getLogger(__name__)

Metric = Callable[[Tensor, Tensor], Tensor]  # uint8 images and reconstructions -> (B,) float64
Distance = Callable[[Tensor, Tensor], float]  # features (n, D) and (m, D) of two sets of images
SHOWN = 8  # images in a picture


class Extractor(Protocol):
    """What distances between sets of images are measured on."""

    def to(self, device: torch.device) -> "Extractor": ...

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, D) float32."""


@dataclass(frozen=True)
class Perturbation:
    """Decodes each image from its posterior mean with noise of `levels` standard deviations, the same noise at all levels."""

    codec: Standardised
    metrics: Mapping[str, Metric]
    extractors: Mapping[str, Extractor]
    distances: Mapping[str, Distance]
    pixel_rule: PixelRule
    levels: Sequence[float]
    seed: int

    def run(self, batches: Iterable[Any], out: Path) -> dict[str, Estimate]:
        """Each metric and distance at each level, with the slope and the area of its curve. Pictures of both go to `out`."""
        values: dict[str, list[list[Tensor]]] = {name: [[] for _ in self.levels] for name in self.metrics}
        seen: dict[str, list[list[Tensor]]] = {
            name: [[] for _ in (None, *self.levels)] for name in self.extractors
        }  # the originals come first
        done = 0
        for images, _ in batches:
            stored, perturbed = to_uint8(images, self.pixel_rule), self.decoded(images, first=done)
            for name, metric in self.metrics.items():
                for level, recon in zip(values[name], perturbed, strict=True):
                    level.append(metric(stored, recon))
            for name, sets in seen.items():
                for features, pixels in zip(sets, (stored, *perturbed), strict=True):
                    features.append(self.extract(name, pixels).cpu())
            if not done:
                save(sheet([from_uint8(pixels[:SHOWN]) for pixels in (stored, *perturbed)]), out / "perturbed.png")
            done += len(images)
        by_level = {name: torch.stack([torch.cat(parts) for parts in levels]) for name, levels in values.items()}
        by_level |= dict(self.apart(seen))
        curves = {
            name: Curve(self.levels, [normal_mean(level) for level in levels]) for name, levels in by_level.items()
        }
        if curves:
            draw_curves(curves, out / "perturbation.png", xlabel="noise on the latents, standard deviations")
        found = {
            f"{name}/eps={eps:g}": e for name, told in curves.items() for eps, e in zip(told.x, told.y, strict=True)
        }
        return found | dict(self.summed_up(by_level))

    def decoded(
        self,
        images: Tensor,  # (B, 3, H, W)
        *,
        first: int,  # the place of images[0] in the split
    ) -> list[Tensor]:  # (B, 3, H, W) uint8 each
        """Images decoded from the latents of a batch at each level."""
        mean = self.codec.encode(images) * self.codec.unit
        noise = drawn_noise(mean.shape[1:], seed=self.seed, places=range(first, first + len(mean))).to(mean)
        perturbed = (perturb(mean, eps=eps, noise=noise, sigma=self.codec.sigma) for eps in self.levels)
        return [to_uint8(self.codec.tokenizer.decode(z).float().cpu(), self.pixel_rule) for z in perturbed]

    def apart(self, seen: Mapping[str, Sequence[Sequence[Tensor]]]) -> Iterator[tuple[str, Tensor]]:
        """(levels, 1) of each distance to the originals, on the features of each extractor."""
        for extractor, sets in seen.items():
            originals, *levels = (torch.cat(features) for features in sets)
            for name, distance in self.distances.items():
                yield (
                    f"r{name}_{extractor}",
                    torch.tensor([[distance(features, originals)] for features in levels], dtype=torch.float64),
                )

    def summed_up(self, by_level: Mapping[str, Tensor]) -> Iterator[tuple[str, Estimate]]:
        """Slope and area of each curve whose values are finite."""
        for name, levels in by_level.items():
            if not torch.isfinite(levels).all():
                log.info("%s is infinite where nothing is lost: its curve has no slope and no area.", name)
                continue
            told = curve(self.levels, levels)
            yield f"{name}/slope", normal_mean(told.slope)
            yield f"{name}/area", normal_mean(told.area)

    def extract(self, extractor: str, images: Tensor) -> Tensor:  # (B, 3, H, W) uint8 -> (B, D)
        """What an extractor sees in a batch."""
        return self.extractors[extractor].to(self.codec.device).features(images.to(self.codec.device))

    def views(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """From images in [-1, 1] to what each extractor sees in them as uint8."""
        return {
            name: lambda images, name=name: self.extract(name, to_uint8(images.cpu(), self.pixel_rule))
            for name in self.extractors
        }


def save(picture: Tensor, path: Path) -> None:  # (3, H, W) uint8
    """A picture as PNG."""
    Image.fromarray(rearrange(picture, "c h w -> h w c").numpy()).save(path)
