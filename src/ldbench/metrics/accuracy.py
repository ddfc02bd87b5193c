"""Class accuracy: how often a classifier predicts the label of an image, or the label that it was sampled for."""

from typing import ClassVar

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import proportion
from ldbench.metrics.feature_set import FeatureSet


class ClassAccuracy:
    """The share of samples that the extractor's classifier assigns to their label (top 1), with Wilson's interval
    over samples.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    is_distance: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = True

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The accuracy. Raises ValueError for a label that the classifier does not have."""
        logits, labels = samples.get("logits"), samples.get("labels")
        num_classes = logits.shape[1]
        if labels.max() >= num_classes:
            raise ValueError(
                f"The extractor's classifier has {num_classes} classes, and the images have a label {labels.max()}. "
                "Leave class_accuracy out."
            )
        return proportion(logits.argmax(dim=1) == labels)
