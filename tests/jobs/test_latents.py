"""Job `latents`: numbers of planted laws, what does not apply is left out, and units do not matter."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobs.stores import stored
from torch import Tensor

import ldbench
from ldbench.config.compose import Registry
from ldbench.core.estimate import Estimate
from ldbench.jobs.latents import Latents
from ldbench.pipeline import pipeline
from ldbench.results import records

SETTINGS = {key: value for key, value in Registry().options("job")["latents"].items() if not key.startswith("_")}
ON_A_GRID = {f"latents/{name}" for name in ("lds", "cds", "dct_energy/rho=0.25", "dct_energy/rho=0.5")}
VELOCITY = {f"latents/{name}" for name in ("viv", "viv_scaled", "viv_kronecker")}


def measured(folder: Path, z: Tensor, *, grid: tuple[int, int] | None = None, **settings: Any) -> dict[str, Estimate]:
    """The metrics of latents (n, N, C) whose classes take turns."""
    settings = {**SETTINGS, **settings}
    Latents.check(settings)
    store = stored(folder, "train", z, torch.arange(len(z)) % 3, grid=grid)
    return Latents(train_latents=store, device=torch.device("cpu"), **settings).run(folder / "out")


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_white_latents_have_the_numbers_of_white_noise(tmp_path: Path) -> None:
    found = measured(tmp_path, 5 * normal(600, 16, 2) + 3, grid=(4, 4))
    assert set(found) == VELOCITY | ON_A_GRID | {"latents/rmsc"}
    assert found["latents/viv"].value == pytest.approx(math.pi / 2, rel=0.02)
    assert found["latents/viv_kronecker"].value == 0
    assert found["latents/viv_scaled"].value == pytest.approx(found["latents/viv"].value * 32**0.5)
    for name, expected in {
        "lds": 0.0,
        "cds": 0.0,
        "dct_energy/rho=0.25": 13 / 16,
        "dct_energy/rho=0.5": 6 / 16,
    }.items():
        estimate = found[f"latents/{name}"]
        assert estimate.value == pytest.approx(expected, abs=4 * estimate.standard_error)
        assert estimate.low < estimate.value < estimate.high
    assert not (tmp_path / "out").exists()


def test_smooth_latents_have_less_velocity_variance_and_energy_and_more_similar_neighbors(tmp_path: Path) -> None:
    white = normal(300, 4, 4, 2)
    smooth = white + white.roll(1, dims=1) + white.roll(1, dims=2) + white.roll((1, 1), dims=(1, 2))
    one, other = (measured(tmp_path / name, z.flatten(1, 2), grid=(4, 4)) for name, z in (("a", white), ("b", smooth)))
    for name in ("viv", "dct_energy/rho=0.25", "dct_energy/rho=0.5", "rmsc"):
        assert other[f"latents/{name}"].high < one[f"latents/{name}"].low
    for name in ("lds", "cds"):
        assert one[f"latents/{name}"].high < other[f"latents/{name}"].low


def test_classes_far_apart_leave_little_velocity_to_each(tmp_path: Path) -> None:
    """Standardized over all classes, a class has a variance of 1 / (1 + 8 / 3): its centers are -2, 0 and 2."""
    z = normal(900, 3, 2) + 2 * (torch.arange(900) % 3 - 1)[:, None, None]
    found = measured(tmp_path, z)
    assert found["latents/viv"].value == pytest.approx(math.pi / 2 / (1 + 8 / 3) ** 0.5, rel=0.02)


def test_neither_scales_nor_shifts_of_channels_nor_a_grid_matter(tmp_path: Path) -> None:
    z = normal(90, 6, 3)
    found = measured(tmp_path / "a", z, grid=(2, 3))
    scaled = measured(tmp_path / "b", z * torch.tensor([0.1, 1.0, 30.0]) - 4)
    assert set(scaled) == set(found) - ON_A_GRID
    for name, estimate in scaled.items():
        assert estimate.value == pytest.approx(found[name].value, rel=1e-4)


def test_many_numbers_take_a_kronecker_covariance_that_may_be_chosen(tmp_path: Path) -> None:
    z = normal(90, 8, 4)
    assert measured(tmp_path / "a", z)["latents/viv_kronecker"].value == 1  # 32 numbers, 30 images in a class
    z = normal(300, 4, 2)
    full, kronecker = (measured(tmp_path / name, z, covariance=name) for name in ("full", "kronecker"))
    assert (full["latents/viv_kronecker"].value, kronecker["latents/viv_kronecker"].value) == (0, 1)
    assert full["latents/viv"].value == pytest.approx(kronecker["latents/viv"].value, rel=0.01)


def test_classes_of_too_few_images_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    found = measured(tmp_path / "a", normal(30, 8, 4), covariance="full")
    assert set(found) == {"latents/rmsc"}
    assert "leaves out 3 of 3 classes: their covariances need 38 images each" in caplog.text
    assert set(measured(tmp_path / "b", normal(300, 8, 4), images_per_class=10)) == VELOCITY | {"latents/rmsc"}


def test_a_flip_flop_that_has_not_converged_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    measured(tmp_path, normal(90, 8, 4), iterations=1)
    assert "Raise job.iterations" in caplog.text


def test_constant_channels_and_samples_of_posteriors_are_measured(tmp_path: Path) -> None:
    z = torch.cat([normal(90, 4, 2), torch.ones(90, 4, 1)], dim=2)
    found = measured(tmp_path / "a", z, grid=(2, 2))
    assert found["latents/viv"].value == pytest.approx(2 / 3 * math.pi / 2, rel=0.05)
    assert measured(tmp_path / "b", z, latent="sample")["latents/viv"].value == pytest.approx(math.pi / 2, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent": "mode"}, "job.latent must be one of mean, sample"),
        ({"covariance": "diagonal"}, "job.covariance must be one of auto, full, kronecker"),
        ({"images_per_class": 2}, "job.images_per_class must be at least 3"),
        ({"num_images": 1}, "job.num_images must be at least 2"),
        ({"iterations": 0}, "job.iterations must be at least 1"),
        ({"ridge": 0.0}, "job.ridge must be above 0"),
        ({"far": 1.5}, "job.far must be a share"),
        ({"frequencies": [0.5, 0.5]}, "job.frequencies must be different shares"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Latents.check({**SETTINGS, **settings})


@pytest.mark.trains
def test_it_measures_a_tokenizer_reproducibly(small_overrides: list[str], tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        settings = ["job=latents", f"paths.root={tmp_path}", "force=true"]
        pipeline.run(ldbench.compose("run", [*small_overrides, *settings]))
        (path,) = (tmp_path / "records").glob("latents-*.json")
        found.append(records.read(path).metrics)
    assert found[0] == found[1]
    assert {"latents/rmsc", "latents/lds"} <= set(found[0])
