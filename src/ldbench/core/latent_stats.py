"""LatentStats: the mean and standard deviation by which a tokenizer's authors normalize its latents.

Files state them in three ways: `latents_mean` and `latents_std` (one number a channel), `shift_factor` and
`scaling_factor` of z' = (z - shift) * scale (diffusers), `vq_mean` and `vq_std` (MAETok, SoftVQ: one number each).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldbench.core.normalizer import Normalizer

PAIRS = (("latents_mean", "latents_std"), ("vq_mean", "vq_std"))  # settings of a mean and its deviation
SHIFT, SCALE = "shift_factor", "scaling_factor"


@dataclass(frozen=True)
class LatentStats:
    """(z - mean) / std: one number for all channels, or one each. Raises ValueError for anything else, or std <= 0."""

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not numbers or not all(is_number(number) for number in numbers):
                raise ValueError(
                    f"The {name} of latents must be a finite number, or one for each channel, got {value!r:.60}."
                )
            if name == "std" and min(numbers) <= 0:
                raise ValueError(f"Latents are divided by their std, which must be above zero, got {min(numbers)}.")

    @classmethod
    def from_pair(cls, pair: Sequence[Any]) -> "LatentStats":
        """The statistics of [mean, std], each a number or a list. Raises ValueError for anything else."""
        if len(pair) != 2:
            raise ValueError(f"Statistics of latents are [mean, std], got {len(pair)} values.")
        mean, std = (tuple(value) if isinstance(value, list | tuple) else value for value in pair)
        return cls(mean, std)

    @classmethod
    def from_scale(cls, scale: float) -> "LatentStats":
        """The statistics of latents that are multiplied by one number. Raises ValueError unless it is above zero."""
        if not (is_number(scale) and scale > 0):
            raise ValueError(f"A scale of latents must be above zero, got {scale}.")
        return cls(0.0, 1 / scale)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "LatentStats":
        """The statistics from what `to_dict` returns. Raises ValueError for other keys or values."""
        if not isinstance(content, Mapping) or set(content) != {"mean", "std"}:
            raise ValueError(f"Statistics of latents are a mean and a std, got {str(content)[:60]}.")
        return cls.from_pair((content["mean"], content["std"]))

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain data, as artifacts hold them; one number stays one number."""
        return {
            name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in ("mean", "std")
        }

    def normalizer(self, channels: int) -> Normalizer:
        """Their normalizer. Raises ValueError for statistics of another number of channels."""
        return Normalizer.from_stats(self.mean, self.std, channels=channels)

    def __str__(self) -> str:
        return f"mean {shown(self.mean)}, std {shown(self.std)}"


def from_settings(settings: Mapping[str, Any]) -> LatentStats | None:
    """The statistics that the settings of a model state, or None.

    A mean and a std count before shift and scale. Raises ValueError for one of a pair without the other, and for both
    ways at once: nobody could know which is meant.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    found = [pair for pair in PAIRS if given.keys() & set(pair)]
    if not found:
        return from_scaling(given)
    for pair in found:
        missing = set(pair) - given.keys()
        if missing:
            (present,) = set(pair) - missing
            raise ValueError(f"The settings hold {present} without {missing.pop()}: give both, or neither.")
    if len(found) > 1 or given.keys() & {SHIFT, SCALE}:
        keys = sorted(given.keys() & {*(key for pair in PAIRS for key in pair), SHIFT, SCALE})
        raise ValueError(f"The settings state the scale of latents twice, by {', '.join(keys)}. Leave one way out.")
    mean, std = found[0]
    return LatentStats.from_pair((given[mean], given[std]))


def from_scaling(settings: Mapping[str, Any]) -> LatentStats | None:
    """The statistics of z' = (z - shift) * scale, or None. Raises ValueError for a shift without a scale."""
    if SCALE not in settings:
        if SHIFT in settings:
            raise ValueError(f"The settings hold {SHIFT} without {SCALE}: give both, or neither.")
        return None
    stats = LatentStats.from_scale(settings[SCALE])
    return LatentStats(settings.get(SHIFT, 0.0), stats.std)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shown(value: float | tuple[float, ...]) -> str:
    """One number, or how many there are and their range."""
    if not isinstance(value, tuple):
        return f"{value:.4g}"
    return f"{min(value):.4g} to {max(value):.4g} over {len(value)} channels" if len(value) > 1 else f"{value[0]:.4g}"
