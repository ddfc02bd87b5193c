"""Reconstructing a set of images in batches and measuring each; any process can take any of the batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageSet
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.core.tokenizer import Tokenizer
from ldbench.io.files import add_path_to_errors
from ldbench.jobs._batches import split_into_batches
from ldbench.jobs._set_metrics import FeatureCollector
from ldbench.metrics.feature_set import Extractor, FeatureAccumulator
from ldbench.sampling.noise import NoiseStream

Metric = Callable[[Tensor, Tensor], Tensor]  # uint8 images and reconstructions -> (B,) float64


@dataclass(frozen=True)
class ReconstructionResults:
    """The metrics of some images and features of their reconstructions, by index."""

    values: Mapping[str, Tensor]  # of each metric, (n,) float64
    errors: Tensor  # (n,) float64, mean squared errors of pixels in [0, 255]
    features: Mapping[str, Tensor]  # of the reconstructions: `FeatureAccumulator.tensors`; empty without an extractor

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a file that another process reads; `from_tensors` is the inverse."""
        named = {"values": self.values, "gathered": self.features}
        return {"errors": self.errors} | {
            f"{group}/{name}": tensor for group, tensors in named.items() for name, tensor in tensors.items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "ReconstructionResults":
        """The inverse of `tensors`."""
        values, features = (
            {name.removeprefix(f"{group}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{group}/")}
            for group in ("values", "gathered")
        )
        return cls(values, tensors["errors"], features)


@dataclass(frozen=True)
class ReconstructionPass:
    """Encodes and decodes images, and measures and writes each batch.

    Sampled latents draw their noise by image, so that results do not depend on the batch size.
    """

    tokenizer: Tokenizer
    images: ImageSet
    names: Sequence[str]  # of each image's files
    metrics: Mapping[str, Metric]
    extractor: Extractor | None
    requires: frozenset[str]  # of the metrics on sets
    pixel_rule: PixelRule
    latent: str
    seed: int
    batch_size: int
    workers: int

    def ranges(self) -> list[range]:
        """The indices of each batch's images, in order."""
        return split_into_batches([len(self.images)], self.batch_size)

    def run(
        self,
        folder: Path | None,  # for each image and its reconstruction; None: they are not saved
        batches: Sequence[range],
        *,
        device: torch.device,
        advance: Callable[[int], None],  # called with the number of finished images
    ) -> ReconstructionResults:
        """Reconstructs and measures some batches."""
        self.tokenizer.to(device).eval()
        for metric in self.metrics.values():
            if isinstance(metric, nn.Module):
                metric.to(device)
        count = len(self.images)
        collector = (
            None
            if self.extractor is None
            else FeatureCollector(self.extractor.to(device), FeatureAccumulator(count, self.requires, count), device)
        )
        values: dict[str, list[Tensor]] = {name: [] for name in self.metrics}
        errors = []
        loader: DataLoader[Any] = DataLoader(self.images, batch_sampler=batches, num_workers=self.workers)  # type: ignore[arg-type]
        for indices, (images, labels) in zip(batches, loader, strict=True):
            recon = self.reconstruct(images, first=indices.start, device=device)
            originals = to_uint8(images, self.pixel_rule)
            for name, metric in self.metrics.items():
                values[name].append(metric(originals, recon))
            if collector is not None:
                collector.update(indices.start, recon, labels)
            errors.append((originals.double() - recon.double()).square().mean(dim=(1, 2, 3)))
            if folder is not None:
                self.save(originals, recon, self.names[indices.start : indices.stop], folder)
            advance(len(indices))
        features = {} if collector is None else collector.accumulator.tensors()
        return ReconstructionResults(
            {name: torch.cat(parts) for name, parts in values.items()}, torch.cat(errors), features
        )

    def run_share(
        self, folder: Path | None, batches: Sequence[range], *, device: torch.device, advance: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """`run` in another process: returns the results as tensors by name."""
        return self.run(folder, batches, device=device, advance=advance).tensors()

    @torch.no_grad()
    def reconstruct(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        *,
        first: int,  # index of images[0] in the split
        device: torch.device,
    ) -> Tensor:  # (B, 3, H, W) uint8
        """The reconstructions of a batch; the tokenizer is already on this device."""
        posterior = self.tokenizer.encode(images.to(device))
        z = posterior.mean
        if self.latent == "sample":
            noise = NoiseStream(self.seed, range(first, first + len(z))).normal(0, z.shape)
            z = posterior.sample(eps=noise.to(z))
        return to_uint8(self.tokenizer.decode(z).float().cpu(), self.pixel_rule)

    def save(self, originals: Tensor, recon: Tensor, names: Sequence[str], out: Path) -> None:
        """Writes a batch to `out/originals/<name>.png` and `out/reconstructions/<name>.png`."""
        for folder, images in (("originals", originals), ("reconstructions", recon)):
            for image, name in zip(images, names, strict=True):
                path = out / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                with add_path_to_errors(path):
                    Image.fromarray(rearrange(image, "c h w -> h w c").numpy()).save(path)
