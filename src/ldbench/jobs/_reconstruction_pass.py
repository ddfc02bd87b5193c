"""Images beside their reconstructions, in batches, any of which any process can look at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageSet
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.core.tokenizer import Tokenizer
from ldbench.io.files import add_path_to_errors
from ldbench.jobs._batches import cut
from ldbench.jobs._set_metrics import Watch
from ldbench.metrics.feature_set import Extractor, FeatureAccumulator

Metric = Callable[[Tensor, Tensor], Tensor]  # uint8 images and reconstructions -> (B,) float64


@dataclass(frozen=True)
class Compared:
    """What became of some images, in the order of their places."""

    values: Mapping[str, Tensor]  # of each metric, (n,) float64
    errors: Tensor  # (n,) float64, mean squared errors in levels
    gathered: Mapping[
        str, Tensor
    ]  # what the extractor saw in the reconstructions, see `FeatureAccumulator.tensors`; empty without one

    def tensors(self) -> dict[str, Tensor]:
        """By name, as a file takes them to another process; `of_tensors` gives them back."""
        named = {"values": self.values, "gathered": self.gathered}
        return {"errors": self.errors} | {
            f"{group}/{name}": tensor for group, found in named.items() for name, tensor in found.items()
        }

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "Compared":
        """What `tensors` took apart."""
        values, gathered = (
            {name.removeprefix(f"{group}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{group}/")}
            for group in ("values", "gathered")
        )
        return cls(values, tensors["errors"], gathered)


@dataclass(frozen=True)
class Comparing:
    """Encodes and decodes images, and measures and writes each batch. Sampled latents draw their noise by image, so that no batch shows."""

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

    def places(self) -> list[range]:
        """The places of each batch's images, in order."""
        return cut([len(self.images)], self.batch_size)

    def compare(
        self,
        folder: Path | None,  # that gets each image and its reconstruction; None: they are not kept
        batches: Sequence[range],
        *,
        device: torch.device,
        advance: Callable[[int], None],  # told how many images were looked at
    ) -> Compared:
        """Looks at some batches."""
        self.tokenizer.to(device).eval()
        for metric in self.metrics.values():
            if isinstance(metric, nn.Module):
                metric.to(device)
        count = len(self.images)
        watch = (
            None
            if self.extractor is None
            else Watch(self.extractor.to(device), FeatureAccumulator(count, self.requires, count), device)
        )
        values: dict[str, list[Tensor]] = {name: [] for name in self.metrics}
        errors = []
        loader = DataLoader(self.images, batch_sampler=batches, num_workers=self.workers)
        for places, (images, labels) in zip(batches, loader, strict=True):
            recon = self.reconstruct(images, first=places.start, device=device)
            stored = to_uint8(images, self.pixel_rule)
            for name, metric in self.metrics.items():
                values[name].append(metric(stored, recon))
            if watch is not None:
                watch.update(places.start, recon, labels)
            errors.append((stored.double() - recon.double()).square().mean(dim=(1, 2, 3)))
            if folder is not None:
                self.save(stored, recon, self.names[places.start : places.stop], folder)
            advance(len(places))
        seen = {} if watch is None else watch.gathered.tensors()
        return Compared({name: torch.cat(parts) for name, parts in values.items()}, torch.cat(errors), seen)

    def compare_apart(
        self, folder: Path | None, batches: Sequence[range], *, device: torch.device, advance: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """Looks at some batches, and tells what became of them by name."""
        return self.compare(folder, batches, device=device, advance=advance).tensors()

    @torch.no_grad()
    def reconstruct(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        *,
        first: int,  # the place of images[0] in the split
        device: torch.device,
    ) -> Tensor:  # (B, 3, H, W) uint8
        """What the tokenizer, which is on this device, gives back."""
        posterior = self.tokenizer.encode(images.to(device))
        z = posterior.mean
        if self.latent == "sample":
            noise = [
                torch.randn(z.shape[1:], generator=torch.Generator().manual_seed(self.seed + first + i))
                for i in range(len(z))
            ]
            z = posterior.sample(eps=torch.stack(noise).to(z))
        return to_uint8(self.tokenizer.decode(z).float().cpu(), self.pixel_rule)

    def save(self, stored: Tensor, recon: Tensor, names: Sequence[str], out: Path) -> None:
        """Writes a batch to `out/originals/<name>.png` and `out/reconstructions/<name>.png`."""
        for folder, images in (("originals", stored), ("reconstructions", recon)):
            for image, name in zip(images, names, strict=True):
                path = out / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                with add_path_to_errors(path):
                    Image.fromarray(rearrange(image, "c h w -> h w c").numpy()).save(path)
