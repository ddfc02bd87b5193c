"""Job `gmm`: curves of stored latents, refusals, and metrics that depend on neither scale nor streaming."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from tests.jobs.stores import stored
from torch import Tensor

import ldbench
from ldbench.config.compose import Registry
from ldbench.data.latents.store import LatentStore
from ldbench.jobs.gmm import Gmm
from ldbench.pipeline import pipeline
from ldbench.results import records

Stores = tuple[LatentStore, LatentStore]
SETTINGS = {
    **{key: value for key, value in Registry().options("job")["gmm"].items() if not key.startswith("_")},
    **{"dim": 4, "restarts": 2, "max_iter": 40, "min_variance": 0.5},
}


def latents(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Means (n, 3, 2) that lie on three lines, one for each class, two clusters on each."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    centers = 3 * torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))
    return centers[2 * y + torch.randint(2, (count,), generator=rng)] + torch.randn(count, 3, 2, generator=rng), y


@pytest.fixture
def stores(tmp_path: Path) -> Callable[..., Stores]:
    """Stores of 330 training and 120 held-out latents; `factor` scales them, or each channel."""

    def make(factor: float | tuple[float, ...] = 1.0, *, flips: bool = False) -> Stores:
        parts = {split: latents(count, seed) for split, count, seed in (("train", 330, 1), ("test", 120, 2))}
        name = f"stores-{factor}-{flips}"
        train, test = (
            stored(tmp_path / name / split, split, torch.tensor(factor) * z, y, flips=flips)
            for split, (z, y) in parts.items()
        )
        return train, test

    return make


def job(stores: Stores, **settings: Any) -> Gmm:
    settings = {**SETTINGS, **settings}
    Gmm.check(settings)
    return Gmm(train_latents=stores[0], heldout_latents=stores[1], device=torch.device("cpu"), **settings)


@pytest.mark.curves
def test_it_measures_a_curve_and_writes_numbers_figure_and_mixtures(
    stores: Callable[..., Stores], tmp_path: Path
) -> None:
    found = job(stores()).run(tmp_path)
    assert {name for name in found if name.endswith("k=5") or "k=" not in name} == {
        *("gmm/variance_kept", "gmm/variance_kept_heldout", "gmm/single/nll_per_dim"),
        *(
            f"gmm/{name}/k=5"
            for name in ("nll_per_dim", "train_nll_per_dim", "score", "bic", "aic", "effective_components")
        ),
        *("gmm/per_class/nll_per_dim/k=5", "gmm/per_class/score/k=5"),
    }
    assert 0.5 < found["gmm/variance_kept"].value < 1
    nll, score, one = (found[f"gmm/{name}"] for name in ("nll_per_dim/k=5", "score/k=5", "single/nll_per_dim"))
    assert nll.low < nll.value < nll.high
    assert score.value == pytest.approx(one.value - nll.value)
    assert score.low > 0.05  # there are six clusters
    numbers = json.loads((tmp_path / "gmm.json").read_text())
    assert [entry["k"] for entry in numbers["curve"]] == [5, 10, 20]
    assert numbers["curve"][0]["heldout_nll"] / 4 == pytest.approx(nll.value)
    assert numbers["per_class"]["2"]["num_train_points"] == 110
    assert (tmp_path / "curve.png").stat().st_size > 10_000
    assert set(Gmm.output_files(SETTINGS)) == {path.name for path in tmp_path.iterdir() if path.is_file()}


def test_the_written_mixtures_give_the_reported_likelihoods(stores: Callable[..., Stores], tmp_path: Path) -> None:
    both = stores()
    found = job(both, covariance="full").run(tmp_path)
    left = load_file(tmp_path / "gmm.safetensors")
    moments, _ = both[1].read(torch.arange(120))
    x = (moments[:, 0].flatten(1) - left["whitening.mean"]) @ left["whitening.basis"]
    each = torch.distributions.MultivariateNormal(left["k=5.means"], left["k=5.covariances"]).log_prob(x[:, None])
    nll = -(each + left["k=5.weights"].log()).logsumexp(dim=1) / 4
    assert found["gmm/nll_per_dim/k=5"].value == pytest.approx(nll.mean().item(), abs=1e-4)
    half = 1.9801 * nll.std().item() / 120**0.5
    assert found["gmm/nll_per_dim/k=5"].high - found["gmm/nll_per_dim/k=5"].value == pytest.approx(half, abs=1e-4)
    one = torch.distributions.MultivariateNormal(left["single.means"][0], left["single.covariances"][0]).log_prob(x)
    assert found["gmm/single/nll_per_dim"].value == pytest.approx(-one.mean().item() / 4, abs=1e-4)


def test_curves_stop_at_a_tenth_of_the_points_with_a_note(
    stores: Callable[..., Stores], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = job(stores()).run(tmp_path)
    assert max(int(name.partition("k=")[2]) for name in found if "gmm/nll" in name) == 20
    assert "The curve stops at 20 components: a tenth of the 330 training points is 33." in caplog.text
    assert (
        "The curves of the classes stop at 10 components: a tenth of the 110 training points of the smallest is 11."
        in caplog.text
    )
    notes = json.loads((tmp_path / "gmm.json").read_text())["notes"]
    assert [note.partition(" stop")[0] for note in notes[:2]] == ["The curve", "The curves of the classes"]


def test_explicit_components_beyond_a_tenth_are_refused_unless_allowed(
    stores: Callable[..., Stores], tmp_path: Path
) -> None:
    both = stores()
    with pytest.raises(
        ValueError, match=r"job.components=\[34\] is too many: a tenth of the 330 training points is 33"
    ):
        job(both, components=[5, 34])
    with pytest.raises(ValueError, match="is more than the 330 training points"):
        job(both, components=331, allow_sparse=True)
    found = job(both, components=34, allow_sparse=True, per_class=False).run(tmp_path)
    assert "gmm/nll_per_dim/k=34" in found
    assert not [name for name in found if "per_class" in name]
    with pytest.raises(
        ValueError, match=r"No number of components is possible: job\.curve starts at 5, and a tenth of the 40"
    ):
        job(both, num_train=40)


def test_a_basis_that_keeps_too_little_variance_is_refused_unless_allowed(
    stores: Callable[..., Stores], tmp_path: Path
) -> None:
    both = stores()
    with pytest.raises(
        ValueError,
        match=r"job.dim=2 directions keep \d\d.\d% of the latents' variance, and job.min_variance=90% are required",
    ):
        job(both, dim=2, min_variance=0.9).run(tmp_path)
    assert job(both, dim=2, min_variance=0.1, components=5).run(tmp_path)["gmm/variance_kept"].value < 0.9
    with pytest.raises(ValueError, match="have 6 numbers each, and dim=7"):
        job(both, dim=7).run(tmp_path)


@pytest.mark.parametrize("factor", [2.0**-8, (1.0, 10.0)], ids=["all channels", "one channel"])
def test_no_metric_depends_on_the_scale_of_the_channels(
    stores: Callable[..., Stores], tmp_path: Path, factor: float | tuple[float, ...]
) -> None:
    first, second = (job(stores(f), components=[5]).run(tmp_path) for f in (1.0, factor))
    for name, estimate in first.items():
        assert second[name].value == pytest.approx(estimate.value, rel=2e-3, abs=2e-3), name


@pytest.mark.parametrize("points", ["image", "token"])
def test_points_read_from_disk_in_each_pass_give_the_same(
    stores: Callable[..., Stores], tmp_path: Path, points: str
) -> None:
    settings = {
        "points": points,
        "dim": 2,
        "components": [5],
        "num_train": 200,
        "min_variance": 0.0,
        "max_iter": 15,
        "per_class": points == "image",
    }
    first, second = (job(stores(), hold=hold, **settings).run(tmp_path) for hold in (1.0, 0.0))
    for name, estimate in first.items():
        assert second[name].value == pytest.approx(estimate.value, rel=1e-4), name


def test_each_token_is_a_point_and_each_image_one_draw_of_the_interval(
    stores: Callable[..., Stores], tmp_path: Path
) -> None:
    both = stores()
    found = job(both, points="token", dim=2, components=[50]).run(tmp_path)  # 990 points
    numbers = json.loads((tmp_path / "gmm.json").read_text())
    assert (numbers["num_train_points"], numbers["num_heldout_points"], numbers["points_per_image"]) == (990, 360, 3)
    left = load_file(tmp_path / "gmm.safetensors")
    x = (both[1].read(torch.arange(120))[0][:, 0] - left["whitening.mean"]) @ left["whitening.basis"]  # (120, 3, 2)
    one = (
        -torch.distributions.MultivariateNormal(left["single.means"][0], left["single.covariances"][0])
        .log_prob(x)
        .mean(dim=1)
        / 2
    )
    assert found["gmm/single/nll_per_dim"].value == pytest.approx(one.mean().item(), abs=1e-4)
    half = found["gmm/single/nll_per_dim"].high - found["gmm/single/nll_per_dim"].value
    assert half == pytest.approx(1.9801 * one.std().item() / 120**0.5, abs=1e-4)


def test_flipped_images_are_not_used(stores: Callable[..., Stores], tmp_path: Path) -> None:
    first, second = (job(stores(flips=flips), components=5).run(tmp_path) for flips in (False, True))
    assert first == second


def test_samples_and_fewer_images_are_other_points_and_a_rerun_is_the_same(
    stores: Callable[..., Stores], tmp_path: Path
) -> None:
    both = stores()
    settings = {"components": 5, "per_class": False}
    first = job(both, **settings).run(tmp_path)
    assert job(both, **settings).run(tmp_path) == first
    assert job(both, latent="sample", **settings).run(tmp_path) != first
    assert job(both, num_train=200, **settings).run(tmp_path) != first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": "patch"}, "job.points must be one of image, token, got 'patch'"),
        ({"covariance": "round"}, "job.covariance must be one of diagonal, full, tied"),
        ({"latent": "mode"}, "job.latent must be one of mean, sample"),
        ({"dim": 0}, "job.dim must be at least 1"),
        ({"min_variance": 90}, "job.min_variance must be a share from 0 to 1, got 90"),
        ({"floor": -1.0}, "job.floor must not be negative"),
        ({"num_train": 1}, "job.num_train must be a whole number"),
        (
            {"components": [10, 5]},
            r"job.components takes ascending integers of at least 1, for example \[5,10,20\], got \[10, 5\]",
        ),
        ({"components": "many"}, "job.components takes ascending integers"),
        ({"curve": []}, "job.curve takes ascending integers"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gmm.check({**SETTINGS, **settings})


def test_from_the_command_line_to_a_record(
    small_overrides: list[str], already: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    already()

    def run(*overrides: str) -> None:
        cfg: DictConfig = ldbench.compose("run", [*small_overrides, f"paths.root={tmp_path}", *overrides])
        pipeline.run(cfg)

    caplog.set_level(logging.INFO)
    run("job=gmm", "job.min_variance=0")
    (path,) = (tmp_path / "records").glob("gmm-*.json")
    assert records.read(path).metrics["gmm/nll_per_dim/k=10"].value > 0
    assert re.search(r"The curve stops at 10 components: a tenth of the 14\d training points is 14\.", caplog.text)
    run("job=gmm", "job.min_variance=0", "job.hold=0")
    assert "job gmm was measured already" in caplog.text
    run("job=gmm_maetok", "job.min_variance=0")
    assert len(list((tmp_path / "records").glob("gmm-*.json"))) == 2


def test_maetoks_preset_is_the_job_with_its_numbers_of_components() -> None:
    node = ldbench.compose("run", ["job=gmm_maetok"]).job
    assert node.curve == [5, 10, 50, 100, 200, 300]
    assert (node.points, node.covariance, node.per_class) == ("image", "diagonal", False)
    assert node._target_ == OmegaConf.create(Registry().options("job")["gmm"])._target_
