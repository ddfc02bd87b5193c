"""What a decoder sees at each place of an image, of any tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from ldbench.core.tokenizer import Tokenizer


def decoder_features(
    tokenizer: Tokenizer,
    z: Tensor,  # (B, N, C)
) -> Tensor | None:  # (B, P, D)
    """What goes into the last module of the decoder that takes and gives a vector for each place of the tokenizer's patch grid.

    In a transformer that is what pixels are read from; in a convolutional decoder, the last map before the first enlargement. None where no module
    of the decoder works on that grid.
    """
    grid = tokenizer.patch_grid
    with watched(tokenizer.decoder, grid) as seen:
        tokenizer.decode(z)
    return seen[-1] if seen else None


@contextmanager
def watched(module: nn.Module, grid: tuple[int, int]) -> Iterator[list[Tensor]]:
    """A list that fills with the first input of every module inside that takes and gives something at each place, in order of their ends."""
    seen: list[Tensor] = []

    def look(inner: nn.Module, given: tuple[Any, ...], told: Any) -> None:
        taken = at_places(given[0], grid) if given else None
        if taken is not None and at_places(told, grid) is not None:
            seen.append(taken.detach())

    hooks = [inner.register_forward_hook(look) for inner in module.modules() if inner is not module]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def at_places(x: Any, grid: tuple[int, int]) -> Tensor | None:  # (B, P, D)
    """A sequence or a map with a vector for each place of a grid, as a sequence; None for anything else."""
    if isinstance(x, Tensor) and x.ndim == 3 and x.shape[1] == grid[0] * grid[1]:
        return x
    if isinstance(x, Tensor) and x.ndim == 4 and tuple(x.shape[2:]) == grid:
        return rearrange(x, "b d h w -> b (h w) d")
    return None
