"""Drawing samples of a generator by index and decoding them, in parts; any process can draw any part."""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance, Sampler
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.samples import SampleParts
from ldbench.runtime.device import Precision, compute_precision
from ldbench.sampling.noise import NoiseStream
from ldbench.sampling.path_geometry import GeometryRecorder


@dataclass(frozen=True)
class SampleDraws:
    """Draws samples, each of which depends only on the seed, its index and its label.

    No batch crosses the border of two parts.
    """

    tokenizer: Tokenizer
    generator: Generator
    sampler: Sampler
    guidance: Guidance
    seed: int
    y: Tensor  # (num_samples,)
    pixel_rule: PixelRule
    precision: Precision  # of the network
    compiled: bool  # whether the network is compiled, which rounds differently
    batch_size: int

    def draw(
        self,
        parts: SampleParts,
        ranges: Sequence[range],
        *,
        device: torch.device,
        advance: Callable[[int], None],  # called with the number of samples drawn
    ) -> None:
        """Draws and writes some parts, one after the other."""
        self.prepare(device)
        for part in ranges:
            batches = [part[first : first + self.batch_size] for first in range(0, len(part), self.batch_size)]
            images, paths = [], []
            for batch in batches:
                images.append(self.sample(batch, device))
                if isinstance(self.sampler, GeometryRecorder) and self.sampler.last is not None:
                    paths.append(torch.stack(astuple(self.sampler.last), dim=1))
            if paths:  # before the images: a part whose images exist is complete
                parts.write_numbers(part, torch.cat(paths))
            parts.write(part, torch.cat(images))
            advance(len(part))

    def prepare(self, device: torch.device) -> None:
        """Moves the networks to a device, and compiles the generator's if configured."""
        self.generator.to(device).eval()
        if self.compiled:
            self.generator.backbone.compile()
        self.tokenizer.to(device).eval()

    @torch.no_grad()
    def sample(self, indices: range, device: torch.device) -> Tensor:  # (B, 3, H, W) uint8
        """The samples of some indices."""
        latent, stream = self.generator.backbone.latent, NoiseStream(self.seed, indices)
        noise = stream.normal(0, (len(indices), latent.num_tokens, latent.channels)).to(device)
        with compute_precision(self.precision, device.type):
            z = self.generator.sample(
                noise, self.y[list(indices)].to(device), self.sampler, self.guidance, stream=stream
            )
        return to_uint8(self.tokenizer.decode(z).float().cpu(), self.pixel_rule)
