"""Masking: selects the tokens to keep or hide, and restores their positions.

[0] He et al., Masked Autoencoders Are Scalable Vision Learners, 2022, https://arxiv.org/abs/2111.06377
"""

import torch
from torch import Tensor

from ldbench.core.distributed import draw_for_global_batch


def patch_noise(
    images: Tensor,  # (B, 3, H, W)
    num_patches: int,
    given: Tensor | None,  # (B, P)
) -> Tensor:  # (B, P)
    """The numbers in whose order patches are hidden: those given, else uniform ones. Raises ValueError for others."""
    if given is None:
        return draw_for_global_batch(lambda count: torch.rand(count, num_patches, device=images.device), len(images))
    if given.shape != (len(images), num_patches):
        raise ValueError(
            f"mask_noise must be ({len(images)}, {num_patches}), one number per patch, got {tuple(given.shape)}."
        )
    return given


def keep_lowest(
    noise: Tensor,  # (B, P)
    num_kept: int,
) -> tuple[Tensor, Tensor]:  # (B, num_kept) indices ordered by noise, (B, P) bool mask with True = hidden
    """Keeps the `num_kept` tokens with the smallest noise. Raises ValueError unless 1 <= num_kept <= P."""
    if not 1 <= num_kept <= noise.shape[1]:
        raise ValueError(
            f"Cannot keep {num_kept} of {noise.shape[1]} tokens. "
            "Lower the mask ratio, or give the stage a larger image."
        )
    kept = noise.argsort(dim=1, stable=True)[:, :num_kept]
    mask = torch.ones_like(noise, dtype=torch.bool).scatter(1, kept, False)
    return kept, mask


def hide_highest(
    noise: Tensor,  # (B, P)
    num_hidden: int | Tensor,  # one number, or (B,)
) -> Tensor:  # (B, P) bool, True = hidden
    """Hides the tokens with the largest noise; the number may differ per image."""
    ranks = noise.argsort(dim=1, stable=True).argsort(dim=1)
    kept = noise.shape[1] - torch.as_tensor(num_hidden, device=noise.device).reshape(-1, 1)
    return ranks >= kept


def count_hidden(
    ratio: Tensor,  # () or (B,)
    num_tokens: int,
) -> Tensor:  # int64, as `ratio`
    """ceil(num_tokens * ratio), robust to rounding of the product."""
    return (ratio.double() * num_tokens - 1e-9).ceil().long()


def gather_tokens(
    x: Tensor,  # (B, P, D)
    kept: Tensor,  # (B, K) indices
) -> Tensor:  # (B, K, D)
    """The tokens at the kept positions."""
    return x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def scatter_tokens(
    x: Tensor,  # (B, K, D)
    kept: Tensor,  # (B, K) indices
    filler: Tensor,  # (1, 1, D)
    num_tokens: int,
) -> Tensor:  # (B, num_tokens, D)
    """The kept tokens at their positions, and `filler` at all others."""
    full = filler.to(x.dtype).expand(x.shape[0], num_tokens, -1)
    return full.scatter(1, kept.unsqueeze(-1).expand_as(x), x)
