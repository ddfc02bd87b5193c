"""Job `smoothness`: how smoothly images change with their latents, and latents with their images."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ldbench.analysis.equivariance import TRANSFORMS, equivariance
from ldbench.analysis.jacobian import stretch
from ldbench.analysis.paths import distance_to_data, interpolate, measure_paths
from ldbench.analysis.spectrum import spectrum
from ldbench.analysis.stability import stability
from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData, ImageSet
from ldbench.core.intervals import student_mean
from ldbench.core.pixels import PixelRule, sheet
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.store import LatentStore
from ldbench.jobs._perturbation import NUM_SHOWN, Distance, Extractor, Metric, Perturbation, save
from ldbench.jobs._standardized_tokenizer import StandardizedTokenizer
from ldbench.results.panels import Curve, draw_curves
from ldbench.sampling.noise import NoiseStream

log = logging.getLogger(__name__)

CONVERGED = 0.01  # relative change of a singular value in the last iteration, above which a warning is logged
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
    """LDMAE's perturbation of the latents at several levels, on every image and with every metric of the protocol; and
    on some images: paths between two encodings, Jacobians of decoder and encoder, the encoder under noise, and for
    latents on a grid equivariance and their spectrum.

    Latents are posterior means, in units of each channel's standard deviation over the sampled training latents.
    """

    name: ClassVar[str] = "smoothness"
    revision: ClassVar[int] = 3
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
                f"Smoothness needs at least {COUNTS['num_images']} images, and the protocol's split has {len(images)}."
            )
        self.codec = StandardizedTokenizer(tokenizer, train_latents.manifest.statistics.std(), device)
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
            raise ValueError(f"job.levels must be at least two ascending numbers from 0 up, got {levels!r}.")
        for key, minimum in COUNTS.items():
            if settings[key] < minimum:
                raise ValueError(f"job.{key} must be at least {minimum}, got {settings[key]}.")
        if settings["num_points"] % 2 == 0:
            raise ValueError(f"job.num_points must be odd, so that a path has a middle, got {settings['num_points']}.")
        if settings["seed"] < 0:
            raise ValueError(f"job.seed must be at least 0, got {settings['seed']}.")
        if settings["pixel_noise"] <= 0:
            raise ValueError(f"job.pixel_noise must be positive, got {settings['pixel_noise']}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated: none."""
        return ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """All metrics; writes figures of curves, of perturbed and interpolated images, and of the spectrum to `out`."""
        out.mkdir(parents=True, exist_ok=True)
        chosen = subsample(self.images, self.num_images, self.seed)
        images = torch.stack([chosen[index][0] for index in range(len(chosen))])
        z = self.batched(self.codec.encode, images)
        metrics = (
            self.perturbation.run(self.loader(self.images), out)
            | self.paths(z, out)
            | self.jacobians(images, z)
            | self.encoder(images)
        )
        if self.codec.latent.grid is not None:
            metrics |= self.equivariance(images) | self.spectrum(self.codec.latent.to_map(z), out)
        return {f"smoothness/{name}": estimate for name, estimate in metrics.items()}

    def paths(self, z: Tensor, out: Path) -> dict[str, Estimate]:
        """The length in pixels and in features of the straight line between two encodings, and the distance of its
        middle to training images.
        """
        half = min(self.num_pairs, len(z) // 2)
        order = torch.randperm(len(z), generator=torch.Generator().manual_seed(self.seed))
        points = interpolate(z[order[:half]], z[order[half : 2 * half]], self.num_points)  # (K, half, N, C)
        pixels = self.batched(self.codec.decode, points.flatten(0, 1)).unflatten(0, points.shape[:2])
        save(sheet(list(rearrange(pixels[:, :NUM_SHOWN].cpu(), "k b c h w -> b k c h w"))), out / "ways.png")
        views: dict[str, Callable[[Tensor], Tensor]] = {"pixels": lambda images: images} | self.perturbation.views()
        metrics = {}
        for name, view in views.items():
            decoded = self.batched(view, pixels.flatten(0, 1)).unflatten(0, points.shape[:2])
            path = measure_paths(decoded)
            reference = (
                view(images.to(self.device))
                for images, _ in self.loader(subsample(self.data.train, self.num_reference, self.seed))
            )
            distances = distance_to_data(decoded[[0, self.num_points // 2, -1]].flatten(0, 1), reference)
            start, middle, end = distances.unflatten(0, (3, half))
            metrics[f"path/length_{name}"] = student_mean(path.length.cpu())
            metrics[f"path/midpoint_distance_{name}"] = student_mean(middle.cpu())
            metrics[f"path/end_distance_{name}"] = student_mean(((start + end) / 2).cpu())
            if (path.chord > 0).any():
                metrics[f"path/detour_{name}"] = student_mean(path.detour[path.chord > 0].cpu())
        return metrics

    def jacobians(self, images: Tensor, z: Tensor) -> dict[str, Estimate]:
        """Local Lipschitz constants of decoder and encoder, and the decoder's first-order sensitivity to noise and
        anisotropy.
        """

        def decoder(means: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
            return lambda offsets: self.codec.tokenizer.decode(
                means * self.codec.unit + offsets * self.codec.sigma
            ), torch.zeros_like(means)

        def encoder(batch: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
            return self.codec.encode, batch.to(self.device)

        largest, total = self.singular_values("decoder", decoder, z[: self.num_jacobians])
        encoder_largest, _ = self.singular_values("encoder", encoder, images[: self.num_jacobians])
        isotropic = total / z[0].numel() ** 0.5  # the largest singular value of a decoder with equal ones
        metrics = {"decoder/lipschitz": student_mean(largest), "decoder/lipschitz_max": Estimate(largest.max().item())}
        metrics |= {
            "decoder/sensitivity": student_mean(total / images[0].numel() ** 0.5),
            "encoder/lipschitz": student_mean(encoder_largest),
        }
        if (total > 0).any():
            metrics["decoder/anisotropy"] = student_mean((largest / isotropic)[total > 0])
        return metrics

    def singular_values(
        self, name: str, linearize: Callable[[Tensor], tuple[Callable[[Tensor], Tensor], Tensor]], items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The largest singular value and the Frobenius norm of a Jacobian at each item."""
        results, done = [], 0
        for part in items.split(self.batch_size):
            function, x = linearize(part.to(self.device))
            noise = NoiseStream(self.seed, range(done, done + len(x)))
            start, *probes = (noise.normal(1 + probe, x.shape).to(x) for probe in range(1 + self.num_probes))
            results.append(stretch(function, x, start=start, probes=probes, iterations=self.iterations))
            done += len(x)
        change = max(part.change.max().item() for part in results)
        if change > CONVERGED:
            log.warning(
                "The %s's Lipschitz constants still change by up to %.1f %%: raise job.iterations.", name, 100 * change
            )
        return torch.cat([part.largest for part in results]).cpu(), torch.cat([part.total for part in results]).cpu()

    def encoder(self, images: Tensor) -> dict[str, Estimate]:
        """How far an encoding moves, in standard deviations, under noise on the image and under decoding and
        encoding again.
        """
        noise = NoiseStream(self.seed, range(len(images))).normal(0, images.shape)
        batches = zip(images.split(self.batch_size), noise.split(self.batch_size), strict=True)
        results = [
            stability(
                self.codec.encode, self.codec.decode, x.to(self.device), noise=n.to(self.device), eps=self.pixel_noise
            )
            for x, n in batches
        ]
        return {
            f"encoder/{key}": student_mean(torch.cat([getattr(part, key) for part in results]).cpu())
            for key in ("moved", "gain", "round_trip")
        }

    def equivariance(self, images: Tensor) -> dict[str, Estimate]:
        """The difference between transforming the latent and transforming the image."""
        metrics = {}
        for name, transform in TRANSFORMS.items():
            if name == "rotation" and len(set(self.codec.latent.grid or ())) > 1:
                continue  # rotating a map that is not square changes its shape
            parts = (part.to(self.device) for part in images.split(self.batch_size))
            results = [equivariance(self.codec.encode_map, self.codec.decode_map, part, transform) for part in parts]
            for key in ("latent", "pixels"):
                metrics[f"equivariance/{name}_{key}"] = student_mean(
                    torch.cat([getattr(part, key) for part in results]).cpu()
                )
        return metrics

    def spectrum(self, maps: Tensor, out: Path) -> dict[str, Estimate]:
        """The slope of the spectrum, and the share of power in the upper half of the frequencies, with the interval
        of a ratio of means.
        """
        if maps[0, 0].numel() < 2:
            return {}
        power = spectrum(maps)
        metrics = {} if power.slope is None else {"spectrum/slope": Estimate(power.slope)}
        if power.total.sum() > 0:
            share = power.high.sum() / power.total.sum()
            metrics["spectrum/high_share"] = student_mean(
                (share + (power.high - share * power.total) / power.total.mean()).cpu()
            )
            curve = Curve(power.frequency.tolist(), [Estimate(value) for value in power.power.tolist()])
            draw_curves(
                {"power": curve},
                out / "spectrum.png",
                xlabel="cycles per cell",
                logarithmic=power.slope is not None,
            )
        return metrics

    def batched(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The values of a function of many items, computed in batches."""
        return torch.cat([function(part.to(self.device)) for part in x.split(self.batch_size)])

    def loader(self, images: ImageSet) -> DataLoader:
        """Images in order, in batches."""
        return DataLoader(images, batch_size=self.batch_size, num_workers=self.workers)  # type: ignore[arg-type]


def subsample(images: ImageSet, count: int, seed: int) -> ImageSet:
    """At most `count` images, drawn by the seed alone, in order; a smaller subset is contained in a larger one of
    the same seed.
    """
    if count >= len(images):
        return images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return Subset(images, order.sort().values.tolist())  # type: ignore[arg-type]
