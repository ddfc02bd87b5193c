"""Samples against real images by a protocol's metrics on sets, and what their numbers are read by."""

from typing import Any

from ldbench.core.interfaces import Estimate, ImageData
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.metrics.feature_set import FeatureSet


def compare_samples(
    sets: SetEvaluator,
    samples: FeatureSet,
    data: ImageData,
    *,
    reference: str,  # train, test or an .npz in ADM's layout
    balanced: bool,  # whether the samples' labels are balanced, else random or unknown
    settings: dict[str, Any],  # of the passes over real images: pixel_rule, batch_size, num_processes
) -> dict[str, Estimate]:
    """Each metric of samples against the reference, and what they are read by: the same metrics of real images that are
    not in the reference, the distances of a perfect generator, and how training images are told apart.

    Of data without images, the reference alone is compared with.
    """
    splits = ("train", "test") if len(data.train) and len(data.test) else ()
    real = {name: sets.reference_features(data, name, **settings) for name in dict.fromkeys((*splits, reference))}
    compared = real[reference]
    other, label = ("train", "training") if reference == "test" else ("test", "heldout")
    metrics = dict(sets.measure(samples, compared, prefix="g", paired=False))
    if splits:
        metrics |= dict(sets.compare_with_splits(samples, real["train"], real["test"], prefix="g"))
    metrics |= dict(sets.floors(compared, num_samples=samples.num_images, balanced=balanced, prefix="g"))
    if splits:
        metrics |= dict(sets.measure_real(real[other], compared, label, prefix="g"))
    return metrics
