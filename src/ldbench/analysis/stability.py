"""Stability: how far an encoding moves when its image changes."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Stability:
    """Root mean squares over the numbers of each latent, (B,) float64."""

    moved: Tensor  # by noise on the image
    gain: Tensor  # `moved` over the root mean square of the noise
    round_trip: Tensor  # by decoding and encoding again


def stability(
    encode: Callable[[Tensor], Tensor],  # images -> latents, in the unit in which they are compared
    decode: Callable[[Tensor], Tensor],  # latents -> images
    images: Tensor,  # (B, 3, H, W)
    *,
    noise: Tensor,  # (B, 3, H, W), standard normal
    eps: float,  # standard deviation of the noise, in pixels in [-1, 1]
) -> Stability:
    """How an encoder reacts to noise on its images and to its decoder's images.

    For a linear encoder W and decoder D: W noise * eps, and (W D - 1) z.
    Raises ValueError for `eps` that is not positive.
    """
    if eps <= 0:
        raise ValueError(f"Noise needs a positive standard deviation, got eps {eps}.")
    z, added = encode(images), eps * noise
    moved = rms(encode(images + added) - z)
    return Stability(moved=moved, gain=moved / rms(added), round_trip=rms(encode(decode(z)) - z))


def rms(x: Tensor) -> Tensor:  # (B, ...) -> (B,)
    """The root mean square of each item."""
    return x.double().flatten(1).square().mean(dim=1).sqrt()
