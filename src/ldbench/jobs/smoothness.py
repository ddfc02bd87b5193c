"""Job `smoothness`: how gently images change with their latents, and latents with their images."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ldbench.analysis.equivariance import MOVES, equivariance
from ldbench.analysis.jacobian import stretch
from ldbench.analysis.paths import distance_to_data, interpolate, measure_paths
from ldbench.analysis.spectrum import spectrum
from ldbench.analysis.stability import stability
from ldbench.core.interfaces import Estimate, ImageData, ImageSet
from ldbench.core.intervals import normal_mean
from ldbench.core.pixels import PixelRule, sheet
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.store import LatentStore
from ldbench.jobs._perturbation import SHOWN, Distance, Extractor, Metric, Perturbation, save
from ldbench.jobs._standardized_tokenizer import Standardised, drawn_noise
from ldbench.results.panels import Curve, draw_curves

log = logging.getLogger(__name__)

SETTLED = 0.01  # relative change of a singular value in its last iteration above which a word is said
COUNTS = {
    "num_images": 4,
    "num_pairs": 1,
    "num_points": 3,
    "num_reference": 1,
    "num_jacobians": 1,
    "iterations": 2,
    "num_probes": 1,
    "batch_size": 1,
}


class Smoothness:
    """LDMAE's perturbation of the latents at several levels, on every image and with every metric of the protocol; and, on some images: ways
    between two encodings, Jacobians of decoder and encoder, the encoder under noise, and for latents on a grid their moves and their spectrum.

    Latents are posterior means, in standard deviations of each channel over the sampled training latents.
    """

    name: ClassVar[str] = "smoothness"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    settings: ClassVar[tuple[str, ...]] = (
        "levels",
        "pixel_noise",
        "seed",
        *(key for key in COUNTS if key != "batch_size"),
    )

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        data: ImageData,
        images: ImageSet,
        metrics: Mapping[str, Metric],
        extractors: Mapping[str, Extractor],
        distances: Mapping[str, Distance],
        pixel_rule: PixelRule,
        train_latents: LatentStore,
        levels: Sequence[float],
        num_images: int,
        num_pairs: int,
        num_points: int,
        num_reference: int,
        num_jacobians: int,
        iterations: int,
        num_probes: int,
        pixel_noise: float,
        seed: int,
        batch_size: int,
        workers: int,
        device: torch.device,
    ):
        if len(images) < COUNTS["num_images"]:
            raise ValueError(
                f"Smoothness is measured on {COUNTS['num_images']} images or more, and the protocol's split has {len(images)}."
            )
        self.codec = Standardised(tokenizer, train_latents.manifest.statistics.std(), device)
        self.data = data
        self.images = images
        self.perturbation = Perturbation(self.codec, metrics, extractors, distances, pixel_rule, levels, seed)
        self.num_images = num_images
        self.num_pairs = num_pairs
        self.num_points = num_points
        self.num_reference = num_reference
        self.num_jacobians = num_jacobians
        self.iterations = iterations
        self.num_probes = num_probes
        self.pixel_noise = pixel_noise
        self.seed = seed
        self.batch_size = batch_size
        self.workers = workers
        self.device = device

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        levels = settings["levels"]
        numbers = isinstance(levels, Sequence) and all(isinstance(eps, int | float) for eps in levels)
        if not numbers or len(levels) < 2 or levels[0] < 0 or any(b <= a for a, b in pairwise(levels)):
            raise ValueError(f"job.levels must be two ascending numbers or more, from 0 up, got {levels!r}.")
        for key, least in COUNTS.items():
            if settings[key] < least:
                raise ValueError(f"job.{key} must be at least {least}, got {settings[key]}.")
        if settings["num_points"] % 2 == 0:
            raise ValueError(f"job.num_points must be odd, so that a way has a middle, got {settings['num_points']}.")
        if settings["pixel_noise"] <= 0:
            raise ValueError(f"job.pixel_noise must be positive, got {settings['pixel_noise']}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again: none."""
        return ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """Every figure; pictures of curves, of perturbed and of interpolated images, and of the spectrum go to `out`."""
        out.mkdir(parents=True, exist_ok=True)
        images = torch.stack([image for image, _ in drawn(self.images, self.num_images, self.seed)])
        z = self.batched(self.codec.encode, images)
        found = (
            self.perturbation.run(self.loader(self.images), out)
            | self.ways(z, out)
            | self.jacobians(images, z)
            | self.encoder(images)
        )
        if self.codec.latent.grid is not None:
            found |= self.moves(images) | self.frequencies(self.codec.latent.to_map(z), out)
        return {f"smoothness/{name}": estimate for name, estimate in found.items()}

    def ways(self, z: Tensor, out: Path) -> dict[str, Estimate]:
        """How long the straight line between two encodings is in pixels and in features, and how far its middle is from training images."""
        half = min(self.num_pairs, len(z) // 2)
        order = torch.randperm(len(z), generator=torch.Generator().manual_seed(self.seed))
        points = interpolate(z[order[:half]], z[order[half : 2 * half]], self.num_points)  # (K, half, N, C)
        pixels = self.batched(self.codec.decode, points.flatten(0, 1)).unflatten(0, points.shape[:2])
        save(sheet(list(rearrange(pixels[:, :SHOWN].cpu(), "k b c h w -> b k c h w"))), out / "ways.png")
        views: dict[str, Callable[[Tensor], Tensor]] = {"pixels": lambda images: images} | self.perturbation.views()
        found = {}
        for name, look in views.items():
            seen = self.batched(look, pixels.flatten(0, 1)).unflatten(0, points.shape[:2])
            way = measure_paths(seen)
            reference = (
                look(images.to(self.device))
                for images, _ in self.loader(drawn(self.data.train, self.num_reference, self.seed))
            )
            apart = distance_to_data(seen[[0, self.num_points // 2, -1]].flatten(0, 1), reference)
            start, middle, end = apart.unflatten(0, (3, half))
            found[f"path/length_{name}"] = normal_mean(way.length.cpu())
            found[f"path/midpoint_distance_{name}"] = normal_mean(middle.cpu())
            found[f"path/end_distance_{name}"] = normal_mean(((start + end) / 2).cpu())
            if (way.chord > 0).any():
                found[f"path/detour_{name}"] = normal_mean(way.detour[way.chord > 0].cpu())
        return found

    def jacobians(self, images: Tensor, z: Tensor) -> dict[str, Estimate]:
        """The largest stretch of decoder and encoder, what the decoder makes of noise to first order, and how unequal its directions are."""

        def decoder(means: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
            return lambda moves: self.codec.tokenizer.decode(
                means * self.codec.unit + moves * self.codec.sigma
            ), torch.zeros_like(means)

        def encoder(few: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
            return self.codec.encode, few.to(self.device)

        largest, total = self.stretched("decoder", decoder, z[: self.num_jacobians])
        reading, _ = self.stretched("encoder", encoder, images[: self.num_jacobians])
        equal = total / z[0].numel() ** 0.5  # the largest stretch of a decoder that stretches all directions alike
        found = {"decoder/lipschitz": normal_mean(largest), "decoder/lipschitz_max": Estimate(largest.max().item())}
        found |= {
            "decoder/sensitivity": normal_mean(total / images[0].numel() ** 0.5),
            "encoder/lipschitz": normal_mean(reading),
        }
        if (total > 0).any():
            found["decoder/anisotropy"] = normal_mean((largest / equal)[total > 0])
        return found

    def stretched(
        self, what: str, derive: Callable[[Tensor], tuple[Callable[[Tensor], Tensor], Tensor]], items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The largest singular value and the Frobenius norm of a Jacobian at each item."""
        told, done = [], 0
        for part in items.split(self.batch_size):
            function, x = derive(part.to(self.device))
            size = torch.Size((1 + self.num_probes, *x.shape[1:]))
            start, *probes = drawn_noise(size, seed=self.seed, places=range(done, done + len(x))).transpose(0, 1).to(x)
            told.append(stretch(function, x, start=start, probes=probes, iterations=self.iterations))
            done += len(x)
        change = max(part.change.max().item() for part in told)
        if change > SETTLED:
            log.warning(
                "The %s's Lipschitz constants still change by up to %.1f %%: raise job.iterations.", what, 100 * change
            )
        return torch.cat([part.largest for part in told]).cpu(), torch.cat([part.total for part in told]).cpu()

    def encoder(self, images: Tensor) -> dict[str, Estimate]:
        """How far an encoding moves, in standard deviations, under noise on the image and by decoding and encoding once more."""
        noise = drawn_noise(images.shape[1:], seed=self.seed, places=range(len(images)))
        batches = zip(images.split(self.batch_size), noise.split(self.batch_size), strict=True)
        told = [
            stability(
                self.codec.encode, self.codec.decode, x.to(self.device), noise=n.to(self.device), eps=self.pixel_noise
            )
            for x, n in batches
        ]
        return {
            f"encoder/{key}": normal_mean(torch.cat([getattr(part, key) for part in told]).cpu())
            for key in ("moved", "gain", "round_trip")
        }

    def moves(self, images: Tensor) -> dict[str, Estimate]:
        """How far moving the latent is from moving the image."""
        found = {}
        for name, move in MOVES.items():
            if name == "rotation" and len(set(self.codec.latent.grid or ())) > 1:
                continue  # a map that is not square does not keep its shape
            parts = (part.to(self.device) for part in images.split(self.batch_size))
            told = [equivariance(self.codec.encode_map, self.codec.decode_map, part, move) for part in parts]
            for key in ("latent", "pixels"):
                found[f"equivariance/{name}_{key}"] = normal_mean(
                    torch.cat([getattr(part, key) for part in told]).cpu()
                )
        return found

    def frequencies(self, maps: Tensor, out: Path) -> dict[str, Estimate]:
        """The slope of the spectrum, and the share of its power in the upper half of the frequencies, with the interval of a ratio of means."""
        if maps[0, 0].numel() < 2:
            return {}
        told = spectrum(maps)
        found = {} if told.slope is None else {"spectrum/slope": Estimate(told.slope)}
        if told.total.sum() > 0:
            share = told.high.sum() / told.total.sum()
            found["spectrum/high_share"] = normal_mean(
                (share + (told.high - share * told.total) / told.total.mean()).cpu()
            )
            drawn_curve = Curve(told.frequency.tolist(), [Estimate(power) for power in told.power.tolist()])
            draw_curves(
                {"power": drawn_curve},
                out / "spectrum.png",
                xlabel="cycles per cell",
                logarithmic=told.slope is not None,
            )
        return found

    def batched(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A function of many items, in batches."""
        return torch.cat([function(part.to(self.device)) for part in x.split(self.batch_size)])

    def loader(self, images: ImageSet) -> DataLoader:
        """Images in their order, in batches."""
        return DataLoader(images, batch_size=self.batch_size, num_workers=self.workers)


def drawn(images: ImageSet, count: int, seed: int) -> ImageSet:
    """At most `count` images, drawn from the seed alone, in their order; fewer of one seed are among more of it."""
    if count >= len(images):
        return images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return Subset(images, order.sort().values.tolist())
