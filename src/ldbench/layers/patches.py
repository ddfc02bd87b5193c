"""Converts latents to the tokens of a backbone and back."""

from collections.abc import Callable
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.layers.position import sincos_1d, sincos_2d
from ldbench.layers.rotary import grid_rotations, sequence_rotations


@dataclass(frozen=True)
class LatentPatches:
    """Groups a latent into patches, one per token: `patch_size` x `patch_size` positions of a map, or `patch_size`
    neighbors of a sequence.

    Raises ValueError if the patch size does not divide the sides of the grid, or the sequence.
    """

    latent: LatentSpec
    patch_size: int

    def __post_init__(self) -> None:
        sides = self.latent.grid or (self.latent.num_tokens,)
        divisors = [size for size in range(1, min(sides) + 1) if not any(side % size for side in sides)]
        if self.patch_size not in divisors:
            what = (
                f"the latent grid {sides[0]}x{sides[1]}" if len(sides) == 2 else f"the {sides[0]} tokens of the latent"
            )
            raise ValueError(f"patch_size {self.patch_size} does not divide {what}. Choose one of {divisors}.")

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of patches; None for a sequence."""
        return self.latent.grid and (self.latent.grid[0] // self.patch_size, self.latent.grid[1] // self.patch_size)

    @property
    def positions_per_token(self) -> int:
        """The number of latent positions in a patch."""
        return self.patch_size if self.latent.grid is None else self.patch_size**2

    @property
    def num_tokens(self) -> int:
        """T, the number of patches."""
        return self.latent.num_tokens // self.positions_per_token

    def split(
        self,
        z: Tensor,  # (B, N, K)
    ) -> Tensor:  # (B, T, positions_per_token * K), a patch ordered (row, column, channel)
        """The patches of a latent, row-major."""
        if self.grid is None:
            return rearrange(z, "b (t p) k -> b t (p k)", p=self.patch_size)
        height, width = self.grid
        return rearrange(z, "b (h p w q) k -> b (h w) (p q k)", h=height, w=width, p=self.patch_size, q=self.patch_size)

    def join(
        self,
        patches: Tensor,  # (B, T, positions_per_token * K), a patch ordered (row, column, channel)
    ) -> Tensor:  # (B, N, K)
        """The latent that the patches tile."""
        if self.grid is None:
            return rearrange(patches, "b t (p k) -> b (t p) k", p=self.patch_size)
        height, width = self.grid
        return rearrange(
            patches, "b (h w) (p q k) -> b (h p w q) k", h=height, w=width, p=self.patch_size, q=self.patch_size
        )

    def joining(
        self,
        receive: Callable[[Tensor], None] | None,  # takes a latent, (B, N, K)
    ) -> Callable[[Tensor], None] | None:
        """The same for the patches of a latent; None for None."""
        return None if receive is None else lambda patches: receive(self.join(patches))

    def positions(self, width: int) -> Tensor:  # (1, T, D)
        """The fixed sinusoidal position embeddings of the patches."""
        return sincos_1d(self.num_tokens, width=width) if self.grid is None else sincos_2d(self.grid, width=width)

    def rotations(self, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:  # cos and sin, (1, T, head_dim / 2) each
        """The fixed rotary position embeddings of the patches."""
        if self.grid is None:
            return sequence_rotations(self.num_tokens, head_dim=head_dim, theta=theta)
        return grid_rotations(self.grid, head_dim=head_dim, theta=theta)
