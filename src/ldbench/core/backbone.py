"""Backbone: the network of a generator. The base class of every plug-in in `backbones/`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec


@dataclass(frozen=True)
class InnerTokens:
    """The tokens that a backbone hands out after each of its first `depth` blocks, (B, T, width), row-major on `grid`
    (None: a sequence).
    """

    depth: int
    width: int
    grid: tuple[int, int] | None


class Backbone(nn.Module, ABC):
    """A network from noisy latents, times and labels to the prediction that the objective trains.

    `has_null_class`: whether the label table has one more row, for "no label", after those of the classes; which labels
    are dropped is the caller's choice. `learned_variance`: whether it predicts a variance too, as C more channels.
    A plug-in raises `revision` when a change of its code changes its numbers. One that hands out the tokens after its
    blocks sets `inner`, and calls `after_block`, where it is set, with the number of a block (from 1) and its tokens.
    One with a second head after an inner block sets `inner_block`, and calls `on_inner`, where it is set, with its
    output. Raises ValueError when there is no class.
    """

    revision: ClassVar[int] = 1
    second_time: bool = False  # whether `forward` takes r
    inner: InnerTokens | None = None
    after_block: Callable[[int, Tensor], None] | None = None
    inner_block: int | None = None  # after which it has a second head, trained with the same loss
    on_inner: Callable[[Tensor], None] | None = None

    def __init__(self, *, latent: LatentSpec, num_classes: int, has_null_class: bool, learned_variance: bool):
        super().__init__()
        if num_classes < 1:
            raise ValueError(
                f"num_classes must be at least 1, got {num_classes}. Data without labels are of one class."
            )
        self.latent = latent
        self.num_classes = num_classes
        self.null_class = num_classes if has_null_class else None
        self.learned_variance = learned_variance

    @property
    def num_labels(self) -> int:
        """Rows of the label table: the classes, and the null class where there is one."""
        return self.num_classes + (self.null_class is not None)

    @property
    def out_channels(self) -> int:
        """Channels of the output: C, or 2C with a learned variance."""
        return (1 + self.learned_variance) * self.latent.channels

    def blocks(self) -> list[nn.Module]:
        """The modules of its module lists, which are compiled and sharded one by one."""
        return [block for module in self.modules() if isinstance(module, nn.ModuleList) for block in module]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the blocks with `torch.compile`; they are alike, so that one compilation serves all.

        Without blocks, the whole.
        """
        for block in self.blocks():
            block.compile(*args, **kwargs)
        if not self.blocks():
            super().compile(*args, **kwargs)

    @contextmanager
    def keep_tokens(self, blocks: Collection[int]) -> Iterator[dict[int, Tensor]]:
        """Within it, a forward pass adds the tokens after these blocks (from 1) to the mapping, (B, T, D) each."""
        kept: dict[int, Tensor] = {}
        before = self.after_block

        def keep(block: int, tokens: Tensor) -> None:
            if before is not None:
                before(block, tokens)
            if block in blocks:
                if block in kept:
                    raise ValueError(
                        f"The tokens after block {block} were kept by two passes of this {type(self).__name__}, and a "
                        "loss on them is for objectives with one pass. Choose objective=flow_matching."
                    )
                kept[block] = tokens

        self.after_block = keep if blocks else before
        try:
            yield kept
        finally:
            self.after_block = before

    def forward_with_inner(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,)
        y: Tensor,  # (B,)
    ) -> tuple[Tensor, Tensor]:  # each as `forward`
        """The network's output and that of its inner head, by one pass. Raises ValueError for one without."""
        if self.inner_block is None:
            raise ValueError(
                f"This {type(self).__name__} has no head after an inner block. Train one with "
                "+generator.backbone.inner_block=N."
            )
        found: list[Tensor] = []
        self.on_inner = found.append
        try:
            out = self(x, t, y)
        finally:
            self.on_inner = None
        return out, found[0]

    @abstractmethod
    def forward(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,), the network's own time: the objective maps ours to it
        y: Tensor,  # (B,) labels
        *,
        r: Tensor | None = None,  # (B,), a second time of the same kind, where the network has one; None: t
    ) -> Tensor:  # (B, N, C), or (B, N, 2C): the prediction, then the variance
        """The prediction for each latent. Raises ValueError for other shapes, and for an r that it does not take."""

    def validate_inputs(self, x: Tensor, t: Tensor, y: Tensor, r: Tensor | None = None) -> None:
        """Raises ValueError unless x is (B, N, C), t, y and r are (B,), and labels on the CPU are known;
        others are not read. `r` is for a network with a second time.
        """
        if r is not None and not self.second_time:
            raise ValueError(
                f"This {type(self).__name__} has no second time. Build it with second_time=true, as "
                "objective=mean_flow does."
            )
        if r is not None and r.shape != t.shape:
            raise ValueError(f"The second times must be as many as the first, {tuple(t.shape)}, got {tuple(r.shape)}.")
        spec = self.latent
        if x.ndim != 3 or tuple(x.shape[1:]) != (spec.num_tokens, spec.channels):
            raise ValueError(
                f"{type(self).__name__} takes latents (B, {spec.num_tokens}, {spec.channels}), got {tuple(x.shape)}."
            )
        if t.shape != x.shape[:1] or y.shape != x.shape[:1]:
            raise ValueError(
                f"{len(x)} latents need as many times and labels, ({len(x)},) each, "
                f"got {tuple(t.shape)} and {tuple(y.shape)}."
            )
        if y.device.type == "cpu" and not torch.compiler.is_compiling():
            self.validate_labels(y)

    def validate_labels(self, y: Tensor) -> None:
        """Raises ValueError, naming the first label without a row in the label table.

        Synchronizes with the labels' device.
        """
        unknown = y[(y < 0) | (y >= self.num_labels)]
        if len(unknown):
            null = "it has no null class" if self.null_class is None else f"the null class is {self.null_class}"
            raise ValueError(
                f"There is no label {unknown[0].item()}: the {self.num_classes} classes are 0 to "
                f"{self.num_classes - 1}, and {null}."
            )
