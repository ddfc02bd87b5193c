"""Seeded draws that belong to an item: the same in any order, process and worker."""

import hashlib

import torch

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]


def keyed_generator(*key: str | int) -> torch.Generator:
    """A generator that depends on `key` alone: what it draws for an item is the same in any order, process and worker."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def contrasting_colours(num_colours: int, *, contrast: float, rng: torch.Generator) -> list[Colour]:
    """Random colours, the first of which is lighter than all others by `contrast` in luminance, or darker than all of them."""
    colours = torch.rand(256, num_colours, 3, generator=rng)  # candidates
    luminance = colours @ torch.tensor(LUMA)  # (256, num_colours)
    first, others = luminance[:, 0], luminance[:, 1:]
    gap = torch.maximum(first - others.amax(dim=1), others.amin(dim=1) - first)
    chosen = gap.clamp(max=contrast).argmax()  # the first that reaches it
    return [tuple(colour) for colour in colours[chosen].tolist()]
