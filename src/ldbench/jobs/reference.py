"""Job `reference`: real images as an `.npz` in ADM's layout, which samples can be held against anywhere."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from ldbench.core.interfaces import Estimate, ImageData
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.jobs._set_metrics import SetMeasures, parts_of
from ldbench.metrics import adm_npz
from ldbench.metrics.feature_set import FeatureSet

log = logging.getLogger(__name__)

NPZ = "reference.npz"
LAWS = frozenset({"normal", "spatial"})  # of the features, which the file tells by mean and covariance


class Reference:
    """Writes some images of a split with their labels and, through the standard Inception-v3, the mean and covariance of the whole split's features.

    The images are drawn by place, the same for the same data. Another extractor leaves no statistics: in ADM's layout they are Inception-v3's.
    What the extractor sees is kept by digest, as for every job.
    """

    name: ClassVar[str] = "reference"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[tuple[str, ...]] = ("split", "num_images")

    def __init__(
        self,
        *,
        data: ImageData,
        sets: SetMeasures | None,
        split: Literal["train", "test", "all"],
        num_images: int,
        pixel_rule: PixelRule,
        batch_size: int,
        num_processes: int,
        workers: int,
    ):
        self.data = data
        self.sets = sets
        self.split = split
        self.pixel_rule = pixel_rule
        self.batch_size = batch_size
        self.num_processes = num_processes
        self.workers = workers
        whole: ConcatDataset[tuple[Tensor, int]] = ConcatDataset(parts_of(data, split))  # type: ignore[arg-type]
        places = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:num_images].sort().values
        self.images = Subset(whole, places.tolist())

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        if settings["split"] not in ("train", "test", "all"):
            raise ValueError(f"job.split must be one of train, test, all, got {settings['split']!r}.")
        for key in ("num_images", "batch_size", "num_processes"):
            if not isinstance(settings[key], int) or settings[key] < 1:
                raise ValueError(f"job.{key} must be a whole number of at least 1, got {settings[key]!r}.")

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again."""
        return (NPZ,)

    def run(self, out: Path) -> dict[str, Estimate]:
        """How many images are in the file, and how many its statistics are of. The file goes to `out/reference.npz`."""
        seen, labels = (
            self.statistics(),
            torch.tensor([label for _, labels in self.batches() for label in labels.tolist()]),
        )
        adm_npz.write(
            out / NPZ, (images for images, _ in self.batches()), len(self.images), labels=labels, features=seen
        )
        log.info("Say protocol.reference=%s to hold samples against it.", (out / NPZ).resolve())
        return {
            "reference/images": Estimate(float(len(self.images))),
            "reference/statistics_of": Estimate(0.0 if seen is None else float(seen.num_images)),
        }

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, 3, H, W) uint8 and labels of the images in the file."""
        for images, labels in DataLoader(self.images, batch_size=self.batch_size, num_workers=self.workers):
            yield to_uint8(images, self.pixel_rule), labels

    def statistics(self) -> FeatureSet | None:
        """The laws of the whole split; None where they would not be those of the layout."""
        if self.sets is None or not self.sets.extractor.standard:
            log.warning(
                "The file holds images and labels, and no statistics: in this layout they are of Inception-v3's features, and the protocol looks "
                "through %s. Choose protocol.extractor=inception with the standard weights for them.",
                "nothing" if self.sets is None else self.sets.label,
            )
            return None
        facts: dict[str, Any] = {
            "pixel_rule": self.pixel_rule,
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
        return self.sets.reference(self.data, self.split, **facts, requires=LAWS)
