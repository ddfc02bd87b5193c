"""Class accuracy: how often a classifier sees the class that an image is of, or was made for."""

from typing import ClassVar

from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import proportion
from ldbench.metrics.feature_set import FeatureSet


class ClassAccuracy:
    """The share of samples whose label the extractor's classifier gives the most. The interval is Wilson's."""

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    is_distance: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = True

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        logits, labels = samples.get("logits"), samples.get("labels")
        known = logits.shape[1]
        if labels.max() >= known:
            raise ValueError(
                f"The extractor's classifier knows {known} classes, and the images have a label {labels.max()}. Leave class_accuracy out."
            )
        return proportion(logits.argmax(dim=1) == labels)
