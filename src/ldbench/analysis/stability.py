"""Stability: how far an encoding moves when its image does."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Stability:
    """Root mean squares over the numbers of each latent, (B,) float64."""

    moved: Tensor  # by noise
    gain: Tensor  # by noise, over the root mean square of the noise itself
    round_trip: Tensor  # by decoding and encoding once more


def stability(
    encode: Callable[[Tensor], Tensor],  # images -> latents, in whatever unit they are to be compared
    decode: Callable[[Tensor], Tensor],  # latents -> images
    images: Tensor,  # (B, 3, H, W)
    *,
    noise: Tensor,  # (B, 3, H, W), standard normal
    eps: float,  # standard deviation of the noise, in pixels in [-1, 1]
) -> Stability:
    """What an encoder makes of noise on its images and of its own decoder's images.

    Of a linear encoder W and decoder D: W noise * eps, and (W D - 1) z.
    Raises ValueError for a noise that is none.
    """
    if eps <= 0:
        raise ValueError(f"Noise needs a positive standard deviation, got eps {eps}.")
    z, added = encode(images), eps * noise
    moved = size(encode(images + added) - z)
    return Stability(moved=moved, gain=moved / size(added), round_trip=size(encode(decode(z)) - z))


def size(x: Tensor) -> Tensor:  # (B, ...) -> (B,)
    """The root mean square of each item."""
    return x.double().flatten(1).square().mean(dim=1).sqrt()
