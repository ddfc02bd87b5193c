"""Posterior noise keyed by latent: the same numbers in any batch, process or order, and on any device.

A 32-bit mixing function [0] is applied to a counter over a latent's elements, with a 64-bit key from (seed, step, row)
[1]; each 16 bits then index a table of normal quantiles. Only integer arithmetic and one table are used, hence the same
results everywhere. It is as fast as torch's own generator on a CPU, and needs no loop over the latents of a batch.

[0] Wellons, Prospecting for Hash Functions, 2018, https://nullprogram.com/blog/2018/07/31 (xor, shift and multiply)
[1] Steele et al., Fast Splittable Pseudorandom Number Generators, 2014, https://doi.org/10.1145/2660193.2660195 (the
64-bit finalizer)
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

LEVELS = 1 << 16
GOLDEN = -1640531527  # 2**32 over the golden ratio, odd, as int32: neighboring counters map far apart


def posterior_noise(
    keys: Tensor,  # (B, 2) int32, from `noise_keys`
    shape: tuple[int, ...],  # of one latent
) -> Tensor:  # (B, *shape) float32, on the device of the keys
    """Normal numbers on 65536 equally likely levels, with mean 0 and variance 1; the largest is 4.3."""
    size = int(np.prod(shape))
    counter = torch.arange((size + 1) // 2, dtype=torch.int32, device=keys.device) * GOLDEN
    bits = counter + keys[:, :1]
    spare = torch.empty_like(bits)
    mix(bits, spare)
    bits += keys[:, 1:]
    mix(bits, spare)
    levels = bits.view(torch.int16).to(torch.int32)  # (B, size rounded up to even)
    levels &= LEVELS - 1
    drawn = quantiles(str(keys.device)).index_select(0, levels.flatten()).view(levels.shape)
    return drawn[:, :size].reshape(-1, *shape)


def noise_keys(
    rows: Tensor,  # (B,) int64 on the CPU, at least 0
    *,
    seed: int,
    step: Tensor | int,  # (B,) int64 on the CPU, or one for all
) -> Tensor:  # (B, 2) int32
    """The noise keys of latents, unique for each (seed, step, row). Raises ValueError for a negative seed or step."""
    steps = torch.as_tensor(step).expand(len(rows))
    if seed < 0 or (len(steps) and int(steps.min()) < 0):
        raise ValueError(f"Posterior noise needs a seed and a step of at least 0, got {seed} and {step}.")
    key = scramble(np.full(len(rows), seed, dtype=np.uint64))
    for part in (steps, rows):
        key = scramble(key + part.numpy().astype(np.uint64))
    return torch.from_numpy(key.view(np.int32).reshape(-1, 2))


def scramble(keys: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers [1]."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def mix(x: Tensor, spare: Tensor) -> None:
    """A bijection of 32-bit integers [0], in place; masks make torch's signed shifts logical.

    `spare`: a buffer of the same size.
    """
    for shift, factor in ((16, 0x21F0AAAD), (15, -749130345), (15, 1)):  # the second is 0xd35a2d97
        torch.bitwise_right_shift(x, shift, out=spare)
        spare &= (1 << (32 - shift)) - 1
        x ^= spare
        if factor != 1:
            x *= factor


@cache
def quantiles(device: str) -> Tensor:  # (65536,) float32
    """Normal quantiles at the midpoint of each level, scaled to variance 1."""
    middles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    levels = torch.special.ndtri(middles)
    return (levels / levels.square().mean().sqrt()).float().to(device)
