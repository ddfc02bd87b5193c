"""Noise per image: the same numbers in any batch, process or order, and on any device.

[0] Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (Philox), 2011, https://doi.org/10.1145/2063384.2063405
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ldbench.core.interfaces import Increments

MAX_INT64 = 2**63 - 1


class NoiseStream:
    """Standard normal numbers of some images, keyed by (seed, image index, step), from a counter-based generator [0].

    Step 0 is the initial noise of an image; a sampler's i-th increment, from 0, is step i + 1.
    Raises ValueError for a negative seed or index.
    """

    def __init__(self, seed: int, indices: Sequence[int]):
        if not 0 <= seed <= MAX_INT64 or any(not 0 <= index <= MAX_INT64 for index in indices):
            raise ValueError(
                f"A noise stream needs a seed and image indices of at least 0, got {seed} and {list(indices)[:8]}."
            )
        self.seed = seed
        self.indices = tuple(int(index) for index in indices)

    def normal(
        self,
        step: int,
        shape: torch.Size | tuple[int, ...],  # (B, ...), B as many as indices
    ) -> Tensor:  # `shape`, float32 of the CPU
        """The numbers of one step. Raises ValueError for a batch of another size than the stream."""
        if shape[0] != len(self.indices):
            raise ValueError(
                f"The noise stream has {len(self.indices)} images, but the batch has {shape[0]}. "
                "Create it with the indices of this batch."
            )
        counter = np.array([0, 0, 0, step], dtype=np.uint64)  # the highest word: steps share no block of numbers
        noise = np.empty(tuple(shape), dtype=np.float32)
        for row, index in zip(noise, self.indices, strict=True):
            bits = np.random.Philox(key=np.array([self.seed, index], dtype=np.uint64), counter=counter)
            np.random.Generator(bits).standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(noise)


def increment(
    i: int,
    x: Tensor,  # (B, N, C)
    *,
    stream: Increments | None,
    increments: Tensor | None,  # (steps, B, N, C)
) -> Tensor:  # (B, N, C), on the device and in the precision of x
    """The standard normal noise of a sampler's i-th step, from 0.

    Raises ValueError without either source, and if there are too few increments.
    """
    if increments is not None:
        if i >= len(increments):
            raise ValueError(
                f"Step {i} of a sampler needs noise, but got only {len(increments)} increments. Pass one for each step."
            )
        return increments[i].to(x.device, x.dtype)
    if stream is None:
        raise ValueError(
            "This sampler adds noise in its steps. Pass stream=NoiseStream(seed, image indices), or increments."
        )
    return stream.normal(i + 1, x.shape).to(x.dtype).to(x.device)
