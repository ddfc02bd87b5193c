"""Protocol: how something was measured, and the hash that keeps numbers of different protocols apart."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ldbench.core.pixels import PixelRule
from ldbench.results.records import protocol_hash

LABELS = ("balanced", "random")
CHOICES = {"split": ("train", "test", "all"), "pixel_rule": ("round", "truncate"), "latent": ("mean", "sample")}
SPLITS = ("train", "test")  # that samples can be held against


@dataclass(frozen=True)
class Protocol:
    """How reconstructions and samples are measured. Raises ValueError for choices that do not exist or do not fit."""

    name: str  # a label; not hashed
    split: Literal["train", "test", "all"]
    pixel_rule: PixelRule
    latent: Literal["mean", "sample"]
    seed: int  # of sampled latents
    reconstruction: Sequence[str]  # metric names
    extractor: str | None  # whose features distances between sets of images are measured on
    distribution: Sequence[str]  # names of the metrics on sets
    kept: int  # images of a reference whose features are kept, for metrics on neighbours and kernels
    weights: Mapping[
        str, str | None
    ]  # metric or extractor -> where its weights are, in place of its own yaml's; their digests are hashed, not paths
    num_samples: int  # of a generator
    labels: (
        str | Sequence[int]
    )  # of the samples: balanced | random | some classes in turn, which are shown and not measured
    reference: str  # what samples are held against: a split, train | test, or an .npz in ADM's layout, of which the content counts, not the place

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"protocol.{key} must be one of {', '.join(choices)}, got {getattr(self, key)!r}.")
        if self.reference not in SPLITS and not str(self.reference).endswith(".npz"):
            raise ValueError(
                f"protocol.reference must be train, test or the path of an .npz in ADM's layout, got {self.reference!r}."
            )
        for key in ("reconstruction", "distribution"):
            if isinstance(getattr(self, key), str):
                raise ValueError(
                    f"protocol.{key} must be a list of names, got {getattr(self, key)!r}. Say protocol.{key}=[{getattr(self, key)}]."
                )
        if not isinstance(self.kept, int) or self.kept < 2:
            raise ValueError(f"protocol.kept must be a whole number of images of at least 2, got {self.kept!r}.")
        asked = {*self.reconstruction, *([self.extractor] if self.extractor else [])}
        for name in sorted(name for name, source in self.weights.items() if source is not None and name not in asked):
            raise ValueError(
                f"protocol.weights.{name} has nothing to do: the protocol asks for {', '.join(sorted(asked))}."
            )
        if not isinstance(self.num_samples, int) or self.num_samples < 1:
            raise ValueError(f"num_samples must be a whole number of at least 1, got {self.num_samples!r}.")
        if self.labels not in LABELS and (
            isinstance(self.labels, str) or not self.labels or not all(isinstance(y, int) for y in self.labels)
        ):
            raise ValueError(
                f"labels must be {', '.join(LABELS)}, or a list of classes such as [207,360], got {self.labels!r}."
            )
        if self.distribution and self.extractor is None:
            raise ValueError(
                f"protocol.distribution={list(self.distribution)} is measured on features. Name whose: protocol.extractor=digits."
            )
        if self.extractor is not None and not self.distribution:
            raise ValueError(
                f"protocol.extractor={self.extractor} has nothing to do. Say protocol.extractor=null, or protocol.distribution=[fd]."
            )

    @property
    def reference_file(self) -> Path | None:
        """Where the reference is a file of its own."""
        return None if self.reference in SPLITS else Path(self.reference)

    def described(
        self,
        *,
        data: str,
        extractor: str | None = None,
        weights: Mapping[str, str] | None = None,
        reference: str | None = None,
        counting: Collection[str] | None = None,
        **drawn: Any,
    ) -> dict[str, Any]:
        """The fields that count (None: all), the fingerprint of the reference data, the extractor's digest, those of the metrics' weights by
        name and that of a reference's file, with the hash of all under `hash`. `drawn`: how samples were drawn, by name."""
        said = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if counting is None or field.name in counting
        }
        said |= {key: sorted(said[key]) for key in ("reconstruction", "distribution") if key in said}
        if said.get("extractor") is not None:
            said["extractor"] = {"name": self.extractor, "digest": extractor}
        if "reference" in said and self.reference_file is not None:
            said["reference"] = {"sha256": reference}
        told = {key: value for key, value in said.items() if key not in ("name", "weights")}
        said = {"name": self.name, **told, "data": data, **({"weights": dict(weights)} if weights else {}), **drawn}
        return {**said, "hash": protocol_hash(said)}
