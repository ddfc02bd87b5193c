"""Names of figures: costs and reference values are known by them."""

import pytest

from ldbench.results.metric_names import is_cost, is_count, is_reference


@pytest.mark.parametrize(
    "name",
    ["params", "flops", "images_per_second", "throughput/peak_memory", "encode/flops", "params/decoder"],
)
def test_a_cost_is_known_by_its_name(name: str) -> None:
    assert is_cost(name)


@pytest.mark.parametrize("name", ["psnr", "paramsy"])
def test_what_only_resembles_a_cost_is_none(name: str) -> None:
    assert not is_cost(name)


def test_a_reference_value_is_known_by_its_name() -> None:
    assert is_reference("gfd_digits_floor")
    assert is_reference("probe/chance")
    assert not is_reference("floor_plan")


def test_a_count_is_known_by_its_name() -> None:
    assert is_count("predict/tokenizers/sit/gmm/nll/k=5")
    assert is_count("predict/families/mean rank/psnr")
    assert not is_count("predict/p/sit/tokenizers")
    assert not is_count("predict/tokenizers")
