"""Job `reference`: real images as an `.npz` in ADM's layout, with which any tool can compare samples."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData
from ldbench.core.pixels import PixelRule, to_uint8
from ldbench.jobs._set_metrics import SetEvaluator, parts_of
from ldbench.metrics import adm_npz
from ldbench.metrics.feature_set import FeatureSet

log = logging.getLogger(__name__)

NPZ = "reference.npz"
GAUSSIANS = frozenset({"normal", "spatial"})  # of the features; the file contains their means and covariances


class Reference:
    """Writes some images of a split with their labels and, with the standard Inception-v3, the mean and covariance of
    the whole split's features.

    The images are drawn by index, the same for the same data. With another extractor the file has no statistics: in
    ADM's layout they are Inception-v3's. Features are cached by digest, as for every job.
    """

    name: ClassVar[str] = "reference"
    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[tuple[str, ...]] = ("split", "num_images")

    def __init__(
        self,
        *,
        data: ImageData,
        sets: SetEvaluator | None,
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
        indices = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:num_images].sort().values
        self.images = Subset(whole, indices.tolist())

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
        """The files in the output folder without which a recorded measurement is repeated."""
        return (NPZ,)

    def run(self, out: Path) -> dict[str, Estimate]:
        """The numbers of images in the file and behind its statistics. Writes `out/reference.npz`."""
        features = self.features()
        labels = torch.tensor([label for _, labels in self.batches() for label in labels.tolist()])
        adm_npz.write(
            out / NPZ, (images for images, _ in self.batches()), len(self.images), labels=labels, features=features
        )
        log.info("Set protocol.reference=%s to compare samples with it.", (out / NPZ).resolve())
        return {
            "reference/images": Estimate(float(len(self.images))),
            "reference/statistics_of": Estimate(0.0 if features is None else float(features.num_images)),
        }

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, 3, H, W) uint8 and labels of the images in the file."""
        for images, labels in DataLoader(self.images, batch_size=self.batch_size, num_workers=self.workers):
            yield to_uint8(images, self.pixel_rule), labels

    def features(self) -> FeatureSet | None:
        """The features of the whole split; None if the extractor is not the standard Inception-v3."""
        if self.sets is None or not self.sets.extractor.standard:
            log.warning(
                "The file contains images and labels, and no statistics: "
                "in this layout they are of Inception-v3's features, and the protocol's "
                "extractor is %s. Choose protocol.extractor=inception with the standard weights for them.",
                "none" if self.sets is None else self.sets.label,
            )
            return None
        settings: dict[str, Any] = {
            "pixel_rule": self.pixel_rule,
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
        return self.sets.split_features(self.data, self.split, **settings, requires=GAUSSIANS)
