"""Decoder features at each patch of an image, for any tokenizer."""

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
    """The input of the decoder's last module whose input and output have one vector per cell of the tokenizer's patch
    grid.

    In a transformer these are the features that the output layer maps to pixels; in a convolutional decoder the last
    feature map before the first upsampling. None if no module of the decoder works on that grid.
    """
    grid = tokenizer.patch_grid
    with recorded_inputs(tokenizer.decoder, grid) as inputs:
        tokenizer.decode(z)
    return inputs[-1] if inputs else None


@contextmanager
def recorded_inputs(module: nn.Module, grid: tuple[int, int]) -> Iterator[list[Tensor]]:
    """A list that collects the first input of each submodule that maps the grid to the grid, in order of completion."""
    recorded: list[Tensor] = []

    def record(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        sequence = as_patch_sequence(inputs[0], grid) if inputs else None
        if sequence is not None and as_patch_sequence(output, grid) is not None:
            recorded.append(sequence.detach())

    hooks = [inner.register_forward_hook(record) for inner in module.modules() if inner is not module]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def as_patch_sequence(x: Any, grid: tuple[int, int]) -> Tensor | None:  # (B, P, D)
    """A sequence or a feature map with one vector per cell of a grid, as a sequence; None for anything else."""
    if isinstance(x, Tensor) and x.ndim == 3 and x.shape[1] == grid[0] * grid[1]:
        return x
    if isinstance(x, Tensor) and x.ndim == 4 and tuple(x.shape[2:]) == grid:
        return rearrange(x, "b d h w -> b (h w) d")
    return None
