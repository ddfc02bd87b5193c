"""Protocol: how something was measured, and the hash that keeps numbers of different protocols apart."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ldbench.core.pixels import PixelRule
from ldbench.results.records import protocol_hash


@dataclass(frozen=True)
class Protocol:
    """How reconstruction is measured. Raises ValueError for choices that do not exist or do not fit."""

    name: str  # a label; not hashed
    split: Literal["train", "test", "all"]
    pixel_rule: PixelRule
    latent: Literal["mean", "sample"]
    seed: int  # of sampled latents
    reconstruction: Sequence[str]  # metric names
    extractor: str | None  # whose features distances between sets of images are measured on
    distribution: Sequence[str]  # names of these distances

    def __post_init__(self) -> None:
        for key, choices in (("split", ("train", "test", "all")), ("pixel_rule", ("round", "truncate")), ("latent", ("mean", "sample"))):
            if getattr(self, key) not in choices:
                raise ValueError(f"protocol.{key} must be one of {', '.join(choices)}, got {getattr(self, key)!r}.")
        for key in ("reconstruction", "distribution"):
            if isinstance(getattr(self, key), str):
                raise ValueError(f"protocol.{key} must be a list of names, got {getattr(self, key)!r}. Say protocol.{key}=[{getattr(self, key)}].")
        if self.distribution and self.extractor is None:
            raise ValueError(f"protocol.distribution={list(self.distribution)} is measured on features. Name whose: protocol.extractor=digits.")
        if self.extractor is not None and not self.distribution:
            raise ValueError(f"protocol.extractor={self.extractor} has nothing to do. Say protocol.extractor=null, or protocol.distribution=[fd].")

    def described(
        self,
        *,
        data: str,
        extractor: str | None = None,
        counting: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """The fields that count (None: all), the fingerprint of the reference data and the extractor's digest, with the hash of all under `hash`."""
        said = {field.name: getattr(self, field.name) for field in fields(self) if counting is None or field.name in counting}
        said |= {key: sorted(said[key]) for key in ("reconstruction", "distribution") if key in said}
        if said.get("extractor") is not None:
            said["extractor"] = {"name": self.extractor, "digest": extractor}
        said = {"name": self.name, **{key: value for key, value in said.items() if key != "name"}, "data": data}
        return {**said, "hash": protocol_hash(said)}
