"""The shift of times towards the noise, of training times and of samplers' grids alike.

[0] Esser et al., Scaling Rectified Flow Transformers (SD3), 2024, https://arxiv.org/abs/2403.03206 (eq. 23)
[1] Zheng et al., Diffusion Transformers with Representation Autoencoders (RAE), 2025, https://arxiv.org/abs/2510.11690
    (section 4.2: of a shift by the size of latents)
"""

import math
from typing import Literal

from torch import Tensor

Shift = float | Literal["dimension"]  # 1 leaves times unchanged, below 1 they move towards the noise
DIMENSION = "dimension"
REFERENCE = 4096  # numbers of a latent whose times stay where they are: 32 x 32 of 4 channels [1]


def shift_times(
    t: Tensor,  # (...,) in [0, 1], 0 noise, 1 data
    shift: float,
) -> Tensor:  # (...,)
    """shift * t / (1 + (shift - 1) * t) [0]; the same formula in the time that is 1 at the noise, with 1 / shift."""
    return shift * t / (1 + (shift - 1) * t)


def dimension_shift(
    num_numbers: int,  # N C of a latent
) -> float:
    """sqrt(4096 / (N C)): one over RAE's alpha [1], whose time is 1 at the noise. Not clamped: latents of fewer numbers
    have their times moved towards the data.
    """
    return math.sqrt(REFERENCE / num_numbers)


def resolve_shift(
    shift: Shift,
    num_numbers: int,  # N C of a latent
) -> float:
    """The shift of latents of this size."""
    return dimension_shift(num_numbers) if shift == DIMENSION else float(shift)


def validate_shift(shift: Shift) -> None:
    """Raises ValueError unless a shift is above zero, or `dimension`."""
    if shift != DIMENSION and not (isinstance(shift, int | float) and shift > 0):
        raise ValueError(
            f"shift must be above zero, got {shift}. 1 changes nothing (LightningDiT's yaml writes 0 for this), and "
            "`dimension` is the shift by the number of a latent's numbers."
        )
