"""Backbone: the network of a generator. The base class of every plug-in in `backbones/`."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec


class Backbone(nn.Module, ABC):
    """A network from noisy latents, times and labels to the prediction that the objective trains.

    `has_null_class`: whether the label table has one more row, for "no label", after those of the classes; which labels
    are dropped is the caller's choice. `learned_variance`: whether it predicts a variance too, as C more channels.
    A plug-in raises `revision` when a change of its code changes its numbers. Raises ValueError when there is no class.
    """

    revision: ClassVar[int] = 1

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

    @abstractmethod
    def forward(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,), the network's own time: the objective maps ours to it
        y: Tensor,  # (B,) labels
    ) -> Tensor:  # (B, N, C), or (B, N, 2C): the prediction, then the variance
        """The prediction for each latent. Raises ValueError for other shapes."""

    def validate_inputs(self, x: Tensor, t: Tensor, y: Tensor) -> None:
        """Raises ValueError unless x is (B, N, C), t and y are (B,), and labels on the CPU are known;
        others are not read.
        """
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
