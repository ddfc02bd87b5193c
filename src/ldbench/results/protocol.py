"""Protocol: how something is measured, and its hash: numbers of different protocols are never ranked together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ldbench.core.pixels import PixelRule
from ldbench.results.records import protocol_hash

LABELS = ("balanced", "random")
CHOICES = {
    "split": ("train", "test", "all"),
    "pixel_rule": ("round", "truncate", "floor"),
    "latent": ("mean", "sample"),
}
SPLITS = ("train", "test")  # that samples can be compared with


@dataclass(frozen=True)
class Protocol:
    """How reconstructions and samples are measured. Raises ValueError for values that do not exist or do not fit."""

    name: str  # a label; not hashed
    split: Literal["train", "test", "all"]
    pixel_rule: PixelRule
    latent: Literal["mean", "sample"]
    seed: int  # of sampled latents
    reconstruction: Sequence[str]  # metric names
    extractor: str | None  # whose features metrics on sets of images use
    distribution: Sequence[str]  # names of the metrics on sets
    ratio_extractors: Sequence[
        str
    ]  # on each of which samples are compared by FDr, and by the mean; hashed unless empty
    kept: int  # images of a reference whose features are kept, for metrics on neighbors and kernels
    # metric or extractor -> path of its weights, in place of its yaml's; hashed by content
    weights: Mapping[str, str | None]
    num_samples: int  # of a generator
    labels: str | Sequence[int]  # of the samples: balanced | random | classes in turn, which are shown and not measured
    reference: (
        str  # what samples are compared with: train | test | the path of an .npz in ADM's layout, hashed by content
    )

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"protocol.{key} must be one of {', '.join(choices)}, got {getattr(self, key)!r}.")
        if self.reference not in SPLITS and not str(self.reference).endswith(".npz"):
            raise ValueError(
                f"protocol.reference must be train, test or the path of an .npz in ADM's layout, "
                f"got {self.reference!r}."
            )
        for key in ("reconstruction", "distribution", "ratio_extractors"):
            if isinstance(getattr(self, key), str):
                raise ValueError(
                    f"protocol.{key} must be a list of names, got {getattr(self, key)!r}. "
                    f"Set protocol.{key}=[{getattr(self, key)}]."
                )
        if not isinstance(self.kept, int) or self.kept < 2:
            raise ValueError(f"protocol.kept must be a whole number of images of at least 2, got {self.kept!r}.")
        if len(set(self.ratio_extractors)) < len(self.ratio_extractors):
            raise ValueError(f"protocol.ratio_extractors={list(self.ratio_extractors)} names an extractor twice.")
        used = {*self.reconstruction, *self.ratio_extractors, *([self.extractor] if self.extractor else [])}
        for name in sorted(name for name, source in self.weights.items() if source is not None and name not in used):
            raise ValueError(f"protocol.weights.{name} has no effect: the protocol uses {', '.join(sorted(used))}.")
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
                f"protocol.distribution={list(self.distribution)} is measured on features. "
                "Name their extractor: protocol.extractor=digits."
            )
        if self.extractor is not None and not self.distribution:
            raise ValueError(
                f"protocol.extractor={self.extractor} has no effect without metrics on sets. "
                "Set protocol.extractor=null, or protocol.distribution=[fd]."
            )

    @property
    def reference_file(self) -> Path | None:
        """The path of the reference, if it is a file."""
        return None if self.reference in SPLITS else Path(self.reference)

    def described(
        self,
        *,
        data: str,
        extractor: str | None = None,
        metrics: Mapping[str, str] | None = None,
        reference: str | None = None,
        ratio_extractors: Mapping[str, str] | None = None,
        counting: Collection[str] | None = None,
        **drawn: Any,
    ) -> dict[str, Any]:
        """The protocol as a record holds it, with the hash of all fields under `hash`.

        `counting`: the fields that count, None: all. `data`: fingerprint of the data. `extractor`, `metrics`,
        `reference`: digests of the extractor, of metrics by name with all settings, and of the reference's file.
        `ratio_extractors`: digests of these by name, with that of their metric.
        `drawn`: how samples were drawn, by name.
        """
        content = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if counting is None or field.name in counting
        }
        content |= {key: sorted(content[key]) for key in ("reconstruction", "distribution") if key in content}
        if content.get("extractor") is not None:
            content["extractor"] = {"name": self.extractor, "digest": extractor}
        if not content.get("ratio_extractors"):  # hashes are those from before there were any
            content.pop("ratio_extractors", None)
        elif ratio_extractors is not None:
            content["ratio_extractors"] = dict(sorted(ratio_extractors.items()))
        if "reference" in content and self.reference_file is not None:
            content["reference"] = {"sha256": reference}
        hashed = {key: value for key, value in content.items() if key not in ("name", "weights")}
        content = {
            "name": self.name,
            **hashed,
            "data": data,
            **({"metrics": dict(metrics)} if metrics else {}),
            **drawn,
        }
        return {**content, "hash": protocol_hash(content)}
