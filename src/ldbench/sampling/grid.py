"""Time grids of samplers with fixed steps.

[0] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423 (shift 0.3 with 249 steps)
"""

from collections import deque
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from ldbench.core.time_shift import Shift, shift_times, validate_shift

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def time_grid(start: float, end: float, *, num_steps: int, shift: float) -> Tensor:  # (num_steps + 1,) float64
    """num_steps + 1 times from start to end, with their fractions of the way shifted (see `core.time_shift`).

    A shift below 1 moves them towards the start; 1 gives equal steps.
    """
    even = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    return start + (end - start) * shift_times(even, shift)


def validate_grid(num_steps: int, shift: Shift) -> None:
    """Raises ValueError for a grid without steps and for a shift that is not above zero."""
    if num_steps < 1:
        raise ValueError(f"A sampler needs at least one step, got num_steps={num_steps}.")
    validate_shift(shift)


def validate_state(dtype: str, margin: float) -> None:
    """Raises ValueError for an unknown dtype of the state and for a margin outside (0, 0.5)."""
    if dtype not in DTYPES:
        raise ValueError(f"Unknown dtype {dtype!r} of a sampler's state. Choose {' or '.join(DTYPES)}.")
    if not 0 < margin < 0.5:
        raise ValueError(f"margin must lie in (0, 0.5), got {margin}. The usual one is 1e-3.")


def validate_last_step(last_step: str, known: Collection[str]) -> None:
    """Raises ValueError for an unknown kind of last step."""
    if last_step not in known:
        raise ValueError(f"Unknown last_step {last_step!r}. Choose one of {', '.join(known)}.")


def batch_time(
    time: float,
    like: Tensor,  # (B, ...)
) -> Tensor:  # (B,) float64
    """The same time for each image."""
    return torch.full((len(like),), time, dtype=torch.float64)


def last_of(states: Iterator[Tensor]) -> Tensor:
    """The last state, with only one in memory at a time."""
    return deque(states, maxlen=1).pop()
