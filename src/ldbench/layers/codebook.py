"""Codebooks: latents as mixtures of learned codes, or as the nearest of them.

[0] Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, 2024, https://arxiv.org/abs/2412.10958
[1] van den Oord et al., Neural Discrete Representation Learning, 2017, https://arxiv.org/abs/1711.00937
[2] Yu et al., Vector-quantized Image Modeling with Improved VQGAN, 2021, https://arxiv.org/abs/2110.04627 (unit codes)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldbench.core.tokenizer import Quantization


class Codebook(nn.Module):
    """`num_codebooks` books of `size` codes, each for a contiguous segment of the tokens.

    `temperature`: the latent is the mixture of all codes by a softmax of their cosines over it [0]; None: it is the
    nearest code, with the straight-through gradient [1]. `unit_norm`: vectors and codes are compared at length 1, and
    codes have that length. The codes are detached in the comparison of a mixture, so that they learn only as its parts.
    Raises ValueError unless the codebooks divide the tokens.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        channels: int,
        num_codebooks: int,
        size: int,
        temperature: float | None,
        unit_norm: bool,
    ):
        super().__init__()
        for name, value in (("num_codebooks", num_codebooks), ("codebook_size", size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if num_tokens % num_codebooks:
            raise ValueError(f"num_codebooks={num_codebooks} must divide num_tokens={num_tokens}: each has a segment.")
        if temperature is not None and temperature <= 0:
            raise ValueError(f"temperature must be above zero, got {temperature}.")
        self.temperature = temperature
        self.unit_norm = unit_norm
        start = nn.init.uniform_(torch.empty(num_codebooks, size, channels), -1 / size, 1 / size)
        self.codes = nn.Parameter(F.normalize(start, dim=-1) if unit_norm else start)

    def forward(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Quantization:
        """The latents of the vectors, and what loss terms need to know of them."""
        segments = z.unflatten(1, (len(self.codes), -1))  # (B, books, N / books, C)
        codes: Tensor = self.codes
        if self.unit_norm:
            segments, codes = F.normalize(segments, dim=-1), F.normalize(codes, dim=-1)
        if self.temperature is None:
            return self.nearest(segments, codes)
        logits = torch.einsum("bsnc,skc->bsnk", segments, codes.detach())
        mixed = torch.einsum("bsnk,skc->bsnc", (logits / self.temperature).softmax(dim=-1), codes)
        return Quantization(latents=mixed.flatten(1, 2), logits=logits.flatten(1, 2))

    def nearest(
        self,
        segments: Tensor,  # (B, books, N / books, C)
        codes: Tensor,  # (books, K, C)
    ) -> Quantization:
        """The nearest codes, which pass their gradient to the vectors."""
        squares = segments.square().sum(-1, keepdim=True) + codes.square().sum(-1)[:, None]
        logits = 2 * torch.einsum("bsnc,skc->bsnk", segments, codes) - squares  # minus the squared distances
        index = logits.argmax(dim=-1)  # (B, books, N / books)
        books = torch.arange(len(codes), device=index.device)[:, None]
        chosen = codes[books, index]
        return Quantization(
            latents=(segments + (chosen - segments).detach()).flatten(1, 2),
            logits=logits.flatten(1, 2),
            vectors=segments.flatten(1, 2),
            chosen=chosen.flatten(1, 2),
        )
