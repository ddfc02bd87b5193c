"""Ratios of distances on several extractors, and their mean, as jobs `evaluate` and `generate` measure them."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.levels import Levels, evaluator, generate_job, images
from torch import Tensor

from ldbench.jobs._sample_comparison import SIX, mean_name
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.metrics.feature_set import Features


class Curved(Levels):
    """Squares of the mean colors: another extractor."""

    def extract(self, pixels: Tensor) -> Features:
        found = super().extract(pixels)
        return Features(found.features.square() / 100, logits=found.logits)


def of_extractor(folder: Path, name: str) -> SetEvaluator:
    sets = evaluator(folder, "fdr")
    sets.label, sets.key = name, name
    sets.extractor = {"levels": Levels, "curved": Curved}[name]()
    return sets


@pytest.fixture
def data() -> Any:
    return images()


def measured(data: Any, folder: Path, *names: str, **changes: Any) -> dict[str, Any]:
    ratio_sets = {name: partial(of_extractor, folder, name) for name in names}
    job = generate_job(data, changes.pop("sets", None))(ratio_sets=ratio_sets, num_samples=40, **changes)
    found = job.run(folder / "-".join(names))
    assert all(job.higher_is_better[name] is False for name in found if re.fullmatch("fdr_[a-z]+", name))
    return found


def test_each_ratio_is_that_of_a_protocol_of_its_extractor_and_the_mean_is_theirs(data: Any, tmp_path: Path) -> None:
    both = measured(data, tmp_path, "levels", "curved")
    assert set(both) == {f"{name}{end}" for name in ("fdr_levels", "fdr_curved", "fdr_mean") for end in ("", "_floor")}
    alone = generate_job(data, of_extractor(tmp_path, "curved"))(num_samples=40).run(tmp_path / "alone")
    assert alone["fdr_curved"] == both["fdr_curved"]
    assert alone["fdr_curved_floor"] == both["fdr_curved_floor"]
    for end in ("", "_floor"):
        values = [both[f"fdr_{name}{end}"].value for name in ("levels", "curved")]
        assert both[f"fdr_mean{end}"].value == pytest.approx(sum(values) / 2, rel=1e-12)


def test_the_mean_is_of_the_same_samples_on_every_extractor(data: Any, tmp_path: Path) -> None:
    both = measured(data, tmp_path, "levels", "curved")
    errors = [both[f"fdr_{name}"].standard_error for name in ("levels", "curved")]
    # both are of the same colors: their errors add up instead of averaging out
    independent = (errors[0] ** 2 + errors[1] ** 2) ** 0.5 / 2
    assert independent < both["fdr_mean"].standard_error <= sum(errors) / 2 * 1.0001


def test_the_order_of_extractors_and_batches_changes_nothing(data: Any, tmp_path: Path) -> None:
    here = measured(data, tmp_path, "levels", "curved")
    there = measured(data, tmp_path, "curved", "levels", batch_size=7)
    for name, estimate in here.items():
        assert there[name].value == pytest.approx(estimate.value, rel=1e-9)


def test_ratios_stand_beside_the_metrics_of_the_protocols_own_extractor(data: Any, tmp_path: Path) -> None:
    found = measured(data, tmp_path, "curved", sets=evaluator(tmp_path, "fd"))
    assert {"gfd_levels", "fdr_curved", "fdr_mean"} <= found.keys()


def test_samples_of_chosen_classes_are_shown_and_not_compared(data: Any, tmp_path: Path) -> None:
    assert measured(data, tmp_path, "curved", labels=[0, 1]) == {}


def test_only_the_mean_over_the_six_with_standard_weights_is_fdr6() -> None:
    assert mean_name(SIX, standard=True) == "fdr6"
    assert mean_name(SIX, standard=False) == "fdr_mean"
    assert mean_name(SIX - {"clip_l"}, standard=True) == "fdr_mean"
