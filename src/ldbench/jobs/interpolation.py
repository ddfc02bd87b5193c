"""Job `interpolation`: how far images decoded between latents are from real ones (interpolated FID)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ldbench.analysis.latent_neighbors import Path as LatentPath
from ldbench.analysis.latent_neighbors import between, choose_neighbors, nearest_by_cosine
from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData
from ldbench.core.pixels import PixelRule, from_uint8, sheet, to_uint8
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.store import LatentStore
from ldbench.io.files import atomic_write
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.runtime.progress import progress

BLOCK = 1 << 24  # numbers of training latents, or of cosines with them, in memory
DISTANCE = "fd"  # the metric on sets that it measures
SHEET = "interpolations.png"
NUM_SHOWN = 12


class Interpolation:
    """Moves the latent of each test image towards that of a training image, decodes it, and compares the set with the
    test images by a Frechet distance: iFID [0].

    The training image is one of the `neighbors` of the largest cosine, drawn with probabilities softmax(-mean squared
    difference). Latents are posterior means, as the tokenizer gives them. At `alpha` 0 the distance is that of the
    reconstructions, `rfid`. The interval is over test images, for these training images and draws; the distance's floor
    is not 0, since an image between two others is none of the test images.

    [0] Interpolated FID, 2026, https://arxiv.org/abs/2603.05630
    """

    name: ClassVar[str] = "interpolation"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    set_metrics: ClassVar[tuple[str, ...]] = (DISTANCE,)  # of the protocol, without which there is nothing to measure
    settings: ClassVar[tuple[str, ...]] = ("neighbors", "alpha", "path", "seed")

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        data: ImageData,
        sets: SetEvaluator | None,
        train_latents: LatentStore,
        pixel_rule: PixelRule,
        neighbors: int,
        alpha: float,
        path: LatentPath,
        seed: int,
        batch_size: int,
        workers: int,
        device: torch.device,
    ):
        assert sets is not None, "the protocol was checked for its metric"
        if train_latents.manifest.num_images < neighbors:
            raise ValueError(
                f"job.neighbors={neighbors} of {train_latents.manifest.num_images} training images are asked for. "
                "Choose fewer."
            )
        self.tokenizer = tokenizer
        self.data = data
        self.sets = replace(sets, metrics={DISTANCE: sets.metrics[DISTANCE]})
        self.train_latents = train_latents
        self.pixel_rule = pixel_rule
        self.neighbors = neighbors
        self.alpha = alpha
        self.path = path
        self.seed = seed
        self.batch_size = batch_size
        self.workers = workers
        self.device = device
        self.higher_is_better = self.sets.higher_is_better("i")

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key in ("neighbors", "batch_size"):
            if not isinstance(settings[key], int) or settings[key] < 1:
                raise ValueError(f"job.{key} must be a whole number of at least 1, got {settings[key]!r}.")
        if not 0 <= settings["alpha"] <= 1:
            raise ValueError(f"job.alpha must be from 0 (the test image) to 1 (a neighbor), got {settings['alpha']}.")
        if settings["path"] not in ("slerp", "linear"):
            raise ValueError(f"job.path must be slerp or linear, got {settings['path']!r}.")
        if settings["seed"] < 0:
            raise ValueError(f"job.seed must be at least 0, got {settings['seed']}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated: none."""
        return ()

    @torch.no_grad()
    def run(self, out: Path) -> dict[str, Estimate]:
        """The distance with its 95 % interval.

        Writes `out/interpolations.png`: test images, what is decoded, and the decoded neighbors.
        """
        self.tokenizer.to(self.device).eval()
        z = torch.cat([self.tokenizer.encode(images.to(self.device)).mean.cpu() for images, _ in self.batches()])
        chosen = self.chosen_neighbors(z.flatten(1))
        collector, first = self.sets.collector(len(z)), 0
        with progress("decoding", total=len(z), done=0) as advance:
            for images, labels in self.batches():
                batch = slice(first, first + len(images))
                decoded = self.decode(self.interpolated(z[batch], chosen[batch]))
                if first == 0:
                    self.draw(images, decoded, chosen[batch], out)
                collector.update(first, decoded, labels)
                first += len(images)
                advance(len(images))
        real = self.sets.split_features(
            self.data, "test", pixel_rule=self.pixel_rule, batch_size=self.batch_size, num_processes=1
        )
        return dict(self.sets.measure(collector.finish(), real, prefix="i", paired=True))

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Test images (B, 3, H, W) in [-1, 1] and labels, in order."""
        yield from DataLoader(self.data.test, batch_size=self.batch_size, num_workers=self.workers)  # type: ignore[arg-type]

    def chosen_neighbors(
        self,
        z: Tensor,  # (M, D)
    ) -> Tensor:  # (M,) rows of the training latents
        """The training image that each test image moves towards."""
        u = torch.rand(len(z), generator=torch.Generator().manual_seed(self.seed))
        blocks = self.training_blocks(max(1, BLOCK // max(z.shape)))
        nearest = nearest_by_cosine(z.to(self.device), blocks, self.neighbors).cpu()
        found = []
        for own, rows, numbers in zip(*(part.split(self.batch_size) for part in (z, nearest, u)), strict=True):
            others = self.training_latents(rows.flatten()).flatten(1).unflatten(0, rows.shape)
            chosen = choose_neighbors(own, others, numbers)
            found.append(rows.gather(1, chosen[:, None])[:, 0])
        return torch.cat(found)

    def training_blocks(self, size: int) -> Iterator[Tensor]:
        """The training latents (n, D) in order, `size` at a time, without mirrored views."""
        for rows in torch.arange(self.train_latents.manifest.num_images).split(size):
            yield self.training_latents(rows).flatten(1).to(self.device)

    def training_latents(
        self,
        rows: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C)
        """Posterior means of training images."""
        return self.train_latents.read(rows)[0][:, 0].float()

    def interpolated(
        self,
        z: Tensor,  # (B, N, C)
        chosen: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C)
        """The latents on the way to the chosen training images."""
        others = self.training_latents(chosen)
        return between(z.flatten(1), others.flatten(1), self.alpha, self.path).view_as(z)

    def decode(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, 3, H, W) uint8
        """The decoded images by the protocol's rule."""
        return to_uint8(self.tokenizer.decode(z.to(self.device)).float().cpu(), self.pixel_rule)

    def draw(self, images: Tensor, decoded: Tensor, chosen: Tensor, out: Path) -> None:
        """Writes a sheet of the first images: test images, what is decoded, and the decoded neighbors."""
        out.mkdir(parents=True, exist_ok=True)
        others = self.decode(self.training_latents(chosen[:NUM_SHOWN]))
        rows = [images[:NUM_SHOWN], from_uint8(decoded[:NUM_SHOWN]), from_uint8(others)]
        with atomic_write(out / SHEET) as scratch:
            Image.fromarray(rearrange(sheet(rows), "c h w -> h w c").numpy()).save(scratch, format="PNG")
