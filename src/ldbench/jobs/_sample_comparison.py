"""Samples against real images by a protocol's metrics on sets, and what their numbers are read by."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData
from ldbench.core.intervals import Replicates
from ldbench.jobs._batches import Batches
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.metrics.feature_set import FeatureSet

# FDr6's extractors, by their names in the config group; Inception-v3 with the standard weights
SIX = frozenset({"inception", "convnextv2_b", "dinov2_l", "mae_l", "siglip2", "clip_l"})


class Ratio(Protocol):
    """A ratio of distances, such as FDr."""

    def replicates(self, samples: FeatureSet, reference: FeatureSet, *, heldout: FeatureSet) -> Replicates:
        """The ratio, and the same without parts of the samples."""
        ...

    def floor(self, reference: FeatureSet, *, heldout: FeatureSet, num_samples: int, balanced: bool) -> float | None:
        """What a perfect generator gets on average."""
        ...


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
    other, label = others_of(reference)
    metrics = dict(sets.measure(samples, compared, prefix="g", paired=False))
    if splits:
        metrics |= dict(sets.compare_with_heldout(samples, compared, real[other], prefix="g"))
        metrics |= dict(sets.compare_with_splits(samples, real["train"], real["test"], prefix="g"))
    heldout = real[other] if splits else None
    metrics |= dict(
        sets.floors(compared, heldout=heldout, num_samples=samples.num_images, balanced=balanced, prefix="g")
    )
    if splits:
        metrics |= dict(sets.measure_real(real[other], compared, label, prefix="g"))
    return metrics


def compare_images(
    sets: SetEvaluator | None,  # None where the protocol has no metrics on sets
    ratio_sets: Mapping[str, Callable[[], SetEvaluator]],
    images: Batches,
    data: ImageData,
    *,
    strata: Tensor | None,  # (n,) the samples' labels, where they were chosen and not drawn
    reference: str,
    settings: dict[str, Any],  # as of `compare_samples`
    scratch: Path,
) -> dict[str, Estimate]:
    """All that a protocol says of samples: `compare_samples` and `compare_on_extractors`."""
    compared: dict[str, Any] = {"reference": reference, "balanced": strata is not None, "settings": settings}
    found = {}
    if sets is not None:
        samples = sets.sample_features(images, strata=strata, num_processes=settings["num_processes"], scratch=scratch)
        found = compare_samples(sets, samples, data, **compared)
    return found | compare_on_extractors(ratio_sets, images, data, strata=strata, scratch=scratch, **compared)


def others_of(reference: str) -> tuple[str, str]:
    """The split of real images that are not in a reference, and what it is called."""
    return ("train", "training") if reference == "test" else ("test", "heldout")


def compare_on_extractors(
    evaluators: Mapping[str, Callable[[], SetEvaluator]],  # by extractor, each with one metric, a `Ratio`
    images: Batches,
    data: ImageData,
    *,
    strata: Tensor | None,  # (n,) the samples' labels, where they were chosen and not drawn
    reference: str,
    balanced: bool,
    settings: dict[str, Any],  # as of `compare_samples`
    scratch: Path,
) -> dict[str, Estimate]:
    """A ratio of distances on each extractor, and the mean over extractors: FDr6 on the six of its authors.

    One extractor is in memory at a time. The same samples are left out on every extractor, so that the mean has an
    interval. The mean's floor is there where every extractor has one. Raises ValueError for data without images.
    """
    if evaluators and not (len(data.train) and len(data.test)):
        raise ValueError(
            "FDr divides by the distance of real images that are not in the reference, and there are none here. "
            "Name a dataset, or set protocol.ratio_extractors=[]."
        )
    found: dict[str, Estimate] = {}
    numbers, floors, standard = [], [], True
    for name, build in evaluators.items():
        sets = build()
        samples = sets.sample_features(
            images, strata=strata, num_processes=settings["num_processes"], scratch=scratch / name
        )
        compared, heldout = (
            sets.reference_features(data, split, **settings) for split in (reference, others_of(reference)[0])
        )
        ((key, metric),) = sets.metrics.items()
        ratio: Ratio = metric  # type: ignore[assignment]
        numbers.append(ratio.replicates(samples, compared, heldout=heldout))
        floors.append(ratio.floor(compared, heldout=heldout, num_samples=samples.num_images, balanced=balanced))
        own = sets.name(key, "g")
        found[own] = numbers[-1].estimate()
        if floors[-1] is not None:
            found[f"{own}_floor"] = Estimate(floors[-1])
        standard = standard and (name != "inception" or sets.extractor.standard)
    if numbers:
        mean = mean_name(evaluators.keys(), standard=standard)
        found[mean] = Replicates.mean_of(numbers).estimate()
        known = [floor for floor in floors if floor is not None]
        if len(known) == len(floors):
            found[f"{mean}_floor"] = Estimate(sum(known) / len(known))
    return found


def mean_name(extractors: Collection[str], *, standard: bool) -> str:
    """The name in records of a mean over extractors; `fdr6` is that of its authors' six with the standard weights."""
    return "fdr6" if set(extractors) == SIX and standard else "fdr_mean"


def ratio_directions(evaluators: Mapping[str, Any]) -> dict[str, bool]:
    """Whether larger values are better, for each name that `compare_on_extractors` may give."""
    names = [f"fdr_{name}" for name in evaluators] + ["fdr", "fdr6", "fdr_mean"]
    return dict.fromkeys(names, False) if evaluators else {}
