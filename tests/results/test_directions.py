"""Directions: known names are ranked, costs and floors never."""

import pytest

from ldbench.results.directions import direction_of, is_cost, is_reference


@pytest.mark.parametrize(
    "metric",
    [
        "psnr",
        "ssim",
        "class_accuracy",
        "class_accuracy_digits",
        "probe/accuracy",
        "precision_digits",
        "inception_score",
    ],
)
def test_higher_is_better(metric):
    assert direction_of(metric) == "higher"


@pytest.mark.parametrize("metric", ["mse", "lpips", "rfid", "gfid", "rfd_digits", "gfd_dinov2", "kid_digits"])
def test_lower_is_better(metric):
    assert direction_of(metric) == "lower"


@pytest.mark.parametrize(
    "metric",
    [
        "rfd_digits_floor",
        "probe/chance",
        "params",
        "loudness",
        "psnr_variance",
        "gmm/nll_per_dim",
        "latents/train/bytes",
        "msex",
        "",
    ],
)
def test_the_rest_is_shown_and_not_ranked(metric):
    assert direction_of(metric) is None


def test_costs_and_marks_are_known_by_name():
    assert all(
        map(
            is_cost,
            ["params", "flops", "images_per_second", "throughput/peak_memory", "encode/flops", "params/decoder"],
        )
    )
    assert not any(map(is_cost, ["psnr", "paramsy"]))
    assert is_reference("gfd_digits_floor")
    assert not is_reference("floor_plan")
