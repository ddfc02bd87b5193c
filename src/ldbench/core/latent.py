"""The shape of a latent: always a sequence (B, N, C); a 2D map is a sequence that remembers its grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class LatentSpec:
    """The shape of a latent: `num_tokens` vectors of `channels`; `grid=(H, W)` if they form a map, row-major."""

    num_tokens: int
    channels: int
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.num_tokens < 1 or self.channels < 1:
            raise ValueError(
                f"A latent needs at least one token and one channel, got {self.num_tokens} x {self.channels}."
            )
        if self.grid is not None and self.grid[0] * self.grid[1] != self.num_tokens:
            raise ValueError(f"A grid of {self.grid[0]}x{self.grid[1]} does not hold {self.num_tokens} tokens.")

    def to_map(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:
        """(B, C, H, W). Raises ValueError for latents without a grid."""
        height, width = self._grid()
        return rearrange(z, "b (h w) c -> b c h w", h=height, w=width)

    def from_map(
        self,
        z: Tensor,  # (B, C, H, W)
    ) -> Tensor:
        """(B, N, C). Raises ValueError for latents without a grid, and for maps of another grid."""
        if tuple(z.shape[-2:]) != self._grid():
            raise ValueError(f"This latent lies on a {self._grid()} grid, but the map is {tuple(z.shape[-2:])}.")
        return rearrange(z, "b c h w -> b (h w) c")

    def to_dict(self) -> dict[str, Any]:
        """The shape as plain numbers, as artifacts store it."""
        return {
            "num_tokens": self.num_tokens,
            "channels": self.channels,
            "grid": None if self.grid is None else list(self.grid),
        }

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "LatentSpec":
        """The shape from the numbers of `to_dict`. Raises ValueError for other keys."""
        if set(numbers) != {"num_tokens", "channels", "grid"}:
            raise ValueError(
                "A latent is described by num_tokens, channels and grid, got "
                f"{', '.join(sorted(numbers)) or 'nothing'}."
            )
        grid = numbers["grid"]
        return cls(numbers["num_tokens"], numbers["channels"], None if grid is None else (grid[0], grid[1]))

    def _grid(self) -> tuple[int, int]:
        if self.grid is None:
            raise ValueError(
                f"These latents ({self.num_tokens} tokens of {self.channels} channels) have no grid: "
                "use them as (B, N, C)."
            )
        return self.grid
