"""The convolutional encoder and decoder of latent diffusion: residual blocks, attention per level, resampling by two.

[0] Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, https://arxiv.org/abs/2112.10752
"""

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions, each after group norm and swish, added to the input; a 1 x 1 convolution if channels
    change.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self,
        x: Tensor,  # (B, C, H, W)
    ) -> Tensor:  # (B, C', H, W)
        """The block's output."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class MapAttention(nn.Module):
    """Single-head self-attention over all positions of a map, added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v, self.proj = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(
        self,
        x: Tensor,  # (B, C, H, W)
    ) -> Tensor:  # (B, C, H, W)
        """The block's output."""
        h = self.norm(x)
        q, k, v = (rearrange(layer(h), "b c h w -> b 1 (h w) c").contiguous() for layer in (self.q, self.k, self.v))
        attended = rearrange(F.scaled_dot_product_attention(q, k, v), "b 1 (h w) c -> b c h w", h=x.shape[2])
        return x + self.proj(attended)


class Down(nn.Module):
    """Half the size: a 3 x 3 convolution of stride 2 on a map padded at its right and bottom."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """The downsampled map."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    """Twice the size: nearest-neighbor upsampling, then a 3 x 3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The upsampled map."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if the level has it, then resampling, if any."""

    def __init__(self, in_channels: int, out_channels: int, *, depth: int, attention: bool, resample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(depth)
        )
        self.attention = nn.ModuleList(MapAttention(out_channels) for _ in range(depth * attention))
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor) -> Tensor:
        """The level's output."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attention:
                x = self.attention[i](x)
        return self.resample(x)


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int):
        super().__init__()
        self.block1 = ResBlock(channels, channels)
        self.attention = MapAttention(channels)
        self.block2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """A map of the same shape."""
        return self.block2(self.attention(self.block1(x)))


class ConvEncoder(nn.Module):
    """Images to maps: one level for each of `widths`, halving the size between them."""

    def __init__(
        self, *, widths: Sequence[int], depth: int, attention: Sequence[int], out_channels: int, checkpointing: bool
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        last = len(widths) - 1
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.levels = nn.ModuleList(
            Level(
                in_channels,
                out_channels,
                depth=depth,
                attention=i in attention,
                resample=None if i == last else Down(out_channels),
            )
            for i, (in_channels, out_channels) in enumerate(pairs)
        )
        self.middle = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> Tensor:  # (B, out_channels, H / f, W / f)
        """The encoded map."""
        x = self.conv_in(images)
        for part in (*self.levels, self.middle):
            x = run_block(part, x, checkpointing=self.checkpointing)
        return self.conv_out(F.silu(self.norm_out(x)))


class ConvDecoder(nn.Module):
    """Maps to images: the encoder's levels in reverse, each one residual block deeper, doubling the size in between."""

    def __init__(
        self, *, widths: Sequence[int], depth: int, attention: Sequence[int], in_channels: int, checkpointing: bool
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.conv_in = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1])
        pairs = zip((*widths[1:], widths[-1]), widths, strict=True)
        self.levels = nn.ModuleList(  # ordered by resolution, the highest first; run in reverse
            Level(
                in_channels,
                out_channels,
                depth=depth + 1,
                attention=i in attention,
                resample=None if i == 0 else Up(out_channels),
            )
            for i, (in_channels, out_channels) in enumerate(pairs)
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(
        self,
        x: Tensor,  # (B, C, h, w)
    ) -> Tensor:  # (B, 3, H, W)
        """The decoded images."""
        x = self.conv_in(x)
        for part in (self.middle, *reversed(self.levels)):
            x = run_block(part, x, checkpointing=self.checkpointing)
        return self.conv_out(F.silu(self.norm_out(x)))


def run_block(part: nn.Module, x: Tensor, *, checkpointing: bool) -> Tensor:
    """The output of a part; with `checkpointing` its activations are recomputed in the backward pass."""
    return checkpoint(part, x, use_reentrant=False) if checkpointing and x.requires_grad else part(x)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalization with 32 groups, or fewer for narrow maps; eps 1e-6."""
    groups = next(count for count in (32, 16, 8, 4, 2, 1) if channels % count == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)
