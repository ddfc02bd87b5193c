"""Seeded draws for single items: the same in any order, process and worker."""

import hashlib

import torch

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Color = tuple[float, float, float]  # red, green, blue in [0, 1]


def keyed_generator(*key: str | int) -> torch.Generator:
    """A random generator that depends on `key` alone, so that an item's draws are the same in any order, process and
    worker.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def contrasting_colors(num_colors: int, *, contrast: float, rng: torch.Generator) -> list[Color]:
    """Random colors, the first lighter than all others by `contrast` in luminance, or darker than all of them."""
    colors = torch.rand(256, num_colors, 3, generator=rng)  # candidates
    luminance = colors @ torch.tensor(LUMA)  # (256, num_colors)
    first, others = luminance[:, 0], luminance[:, 1:]
    gap = torch.maximum(first - others.amax(dim=1), others.amin(dim=1) - first)
    chosen = gap.clamp(max=contrast).argmax()  # the first candidate with enough contrast
    return [tuple(color) for color in colors[chosen].tolist()]
