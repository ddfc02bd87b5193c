"""Protocol: how something was measured, and the hash that keeps numbers of different protocols apart."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ldbench.core.pixels import PixelRule


@dataclass(frozen=True)
class Protocol:
    """How reconstruction is measured. Raises ValueError for choices that do not exist."""

    name: str  # a label; not hashed
    split: Literal["train", "test", "all"]
    pixel_rule: PixelRule
    latent: Literal["mean", "sample"]
    seed: int  # of sampled latents
    reconstruction: Sequence[str]  # metric names

    def __post_init__(self) -> None:
        for key, choices in (("split", ("train", "test", "all")), ("pixel_rule", ("round", "truncate")), ("latent", ("mean", "sample"))):
            if getattr(self, key) not in choices:
                raise ValueError(f"protocol.{key} must be one of {', '.join(choices)}, got {getattr(self, key)!r}.")

    def described(self, *, data: str) -> dict[str, Any]:
        """The fields and the fingerprint of the reference data, with the hash of both under `hash`."""
        fields = {**asdict(self), "reconstruction": sorted(self.reconstruction), "data": data}
        hashed = {key: value for key, value in fields.items() if key != "name"}
        return {**fields, "hash": hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]}
