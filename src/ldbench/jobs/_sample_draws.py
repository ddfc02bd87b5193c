"""Draws: a generator's samples by their places, decoded, in parts of which any process can make any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance, Sampler
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.samples import SampleParts
from ldbench.runtime.device import Precision, compute_precision
from ldbench.sampling.noise import NoiseStream


@dataclass(frozen=True)
class Draws:
    """A sample depends on the seed, its place and its label alone. Batches end where parts do."""

    tokenizer: Tokenizer
    generator: Generator
    sampler: Sampler
    guidance: Guidance
    seed: int
    y: Tensor  # (num_samples,)
    pixel_rule: PixelRule
    precision: Precision  # in which the network computes
    compiled: bool  # whether the network is, which rounds otherwise
    batch_size: int

    def make(
        self,
        parts: SampleParts,
        wanted: Sequence[range],
        *,
        device: torch.device,
        advance: Callable[[int], None],  # told how many samples were drawn
    ) -> None:
        """Makes some parts, one after the other."""
        self.generator.to(device).eval()
        if self.compiled:
            self.generator.backbone.compile()
        self.tokenizer.to(device).eval()
        for places in wanted:
            batches = [places[first : first + self.batch_size] for first in range(0, len(places), self.batch_size)]
            parts.write(places, torch.cat([self.images(batch, device) for batch in batches]))
            advance(len(places))

    @torch.no_grad()
    def images(self, places: range, device: torch.device) -> Tensor:  # (B, 3, H, W) uint8
        """The samples of some places."""
        latent, stream = self.generator.backbone.latent, NoiseStream(self.seed, places)
        noise = stream.normal(0, (len(places), latent.num_tokens, latent.channels)).to(device)
        with compute_precision(self.precision, device.type):
            z = self.generator.sample(
                noise, self.y[list(places)].to(device), self.sampler, self.guidance, stream=stream
            )
        return to_uint8(self.tokenizer.decode(z).float().cpu(), self.pixel_rule)
