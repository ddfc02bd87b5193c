"""Job `smoothness`: a linear tokenizer gets its exact metrics, and metrics that do not apply are absent."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ldbench.core.latent import LatentSpec
from ldbench.core.pixels import from_uint8
from ldbench.core.posterior import Posterior
from ldbench.jobs.smoothness import Smoothness
from ldbench.metrics.frechet import FrechetDistance
from ldbench.pipeline.job_context import distance_of_pairs

SIGMA = torch.tensor([0.5, 0.25, 1.0])
SETTINGS = {
    **{
        "levels": [0.0, 0.1, 0.2],
        "num_images": 12,
        "num_pairs": 4,
        "num_points": 5,
        "num_reference": 100,
        "num_jacobians": 4,
    },
    **{"iterations": 60, "num_probes": 64, "pixel_noise": 0.05, "seed": 0, "batch_size": 8},
}


class Averages(nn.Module):
    """The mean color of each 4 x 4 patch of 8 x 8 images, times `factor`, with a posterior on which no metric may
    depend.
    """

    def __init__(self, factor: float = 2.0, *, grid: bool = True):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.latent = LatentSpec(4, 3, (2, 2) if grid else None)

    def encode(self, images: Tensor) -> Posterior:
        mean = (self.factor * nn.functional.avg_pool2d(images, 4)).flatten(2).transpose(1, 2)
        return Posterior(mean=mean, logvar=torch.full_like(mean, 9.0))

    def decode(self, z: Tensor) -> Tensor:
        return (
            (z / self.factor)
            .transpose(1, 2)
            .unflatten(2, (2, 2))
            .repeat_interleave(4, dim=2)
            .repeat_interleave(4, dim=3)
        )


class Colors(nn.Module):
    """The mean of each color in [0, 255]."""

    def features(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean(dim=(2, 3))


def squared(images: Tensor, recon: Tensor) -> Tensor:
    return ((images.double() - recon.double()) / 255).square().mean(dim=(1, 2, 3))


@pytest.fixture
def data() -> Any:
    return build_data()


def build_data() -> Any:
    train, test = (0.5 * torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)) - 0.25 for n in (60, 20))
    return SimpleNamespace(train=TensorDataset(train, torch.zeros(60)), test=TensorDataset(test, torch.zeros(20)))


def job(
    data: Any, tokenizer: nn.Module | None = None, *, sigma: Tensor = SIGMA, extractors: bool = True, **settings: Any
) -> Smoothness:
    settings = {**SETTINGS, **settings}
    Smoothness.check(settings)
    store = SimpleNamespace(manifest=SimpleNamespace(statistics=SimpleNamespace(std=lambda: sigma.double())))
    facts = {
        "images": data.test,
        "metrics": {"mse": squared},
        "pixel_rule": "round",
        "train_latents": store,
        "workers": 0,
    }
    facts |= (
        {"extractors": {"colors": Colors()}, "distances": {"fd": partial(distance_of_pairs, FrechetDistance())}}
        if extractors
        else {"extractors": {}, "distances": {}}
    )
    return Smoothness(tokenizer=tokenizer or Averages(), data=data, device=torch.device("cpu"), **facts, **settings)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one measurement of `Averages`."""
    return tmp_path_factory.mktemp("smoothness")


@pytest.fixture(scope="module")
def found(left: Path) -> Any:
    """The metrics of that measurement."""
    return job(build_data()).run(left)


def test_a_linear_decoder_has_its_exact_metrics(found: Any) -> None:
    stretched = SIGMA / 2 * 4  # a move of one number by a deviation moves 16 pixels by sigma / 2
    assert found["smoothness/decoder/lipschitz"].value == pytest.approx(stretched.max().item(), rel=1e-5)
    assert found["smoothness/decoder/lipschitz_max"].value == pytest.approx(stretched.max().item(), rel=1e-5)
    assert found["smoothness/decoder/sensitivity"].value == pytest.approx(
        (SIGMA / 2).square().mean().sqrt().item(), rel=0.05
    )
    assert found["smoothness/encoder/lipschitz"].value == pytest.approx((2 / 4 / SIGMA).max().item(), rel=1e-5)
    assert found["smoothness/encoder/round_trip"].value == pytest.approx(0.0, abs=1e-6)
    assert found["smoothness/path/detour_pixels"].value == pytest.approx(1.0, rel=1e-5)
    # of noise whose own root mean square is nearly pixel_noise
    gain = found["smoothness/encoder/moved"].value / SETTINGS["pixel_noise"]
    assert found["smoothness/encoder/gain"].value == pytest.approx(gain, rel=0.05)


def test_the_path_between_two_images_is_as_long_as_the_distance_of_their_reconstructions(
    data: Any, tmp_path: Path
) -> None:
    found = job(data, num_images=20, num_pairs=10).run(tmp_path)
    images = torch.stack([image for image, _ in data.test])
    blurred = Averages(1.0).decode(Averages(1.0).encode(images).mean)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    start, end = blurred[order[:10]], blurred[order[10:]]
    assert found["smoothness/path/length_pixels"].value == pytest.approx(
        (start - end).square().mean(dim=(1, 2, 3)).sqrt().mean().item(), rel=1e-5
    )
    train = data.train.tensors[0]
    middles = ((start + end) / 2)[:, None] - train[None]
    nearest = middles.square().mean(dim=(2, 3, 4)).sqrt().min(dim=1).values.mean().item()
    assert found["smoothness/path/midpoint_distance_pixels"].value == pytest.approx(nearest, rel=1e-5)


def test_its_curve_is_the_parabola_of_its_noise_above_its_reconstruction(data: Any, found: Any) -> None:
    images = torch.stack([image for image, _ in data.test])
    blurred = Averages(1.0).decode(Averages(1.0).encode(images).mean)
    lost = ((images - blurred) / 2).square().mean().item()
    added = (SIGMA / 2 / 2).square().mean().item()  # pixels in [0, 1]
    for eps in (0.0, 0.1, 0.2):
        estimate = found[f"smoothness/mse/eps={eps:g}"]
        assert estimate.value == pytest.approx(lost + eps**2 * added, rel=0.03)
        assert estimate.low < estimate.value < estimate.high
    # least squares of eps^2 at 0, .1, .2
    assert found["smoothness/mse/slope"].value == pytest.approx(0.2 * added, rel=0.2)
    assert found["smoothness/mse/area"].value == pytest.approx((0.1 * 0.01 / 2 + 0.1 * 0.05 / 2) * added, rel=0.2)


def test_distances_are_measured_at_every_level_and_have_no_interval(data: Any, found: Any, tmp_path: Path) -> None:
    levels = [found[f"smoothness/rfd_colors/eps={eps:g}"] for eps in (0.0, 0.1, 0.2)]
    assert levels[0].value < levels[2].value
    assert all(level.low is None for level in levels)
    assert found["smoothness/rfd_colors/slope"].low is None
    assert {"smoothness/path/length_colors", "smoothness/path/midpoint_distance_colors"} < set(found)
    assert not [name for name in job(data, extractors=False).run(tmp_path) if "colors" in name]


def test_a_latent_on_a_grid_has_equivariance_and_a_spectrum_and_one_without_has_none(
    data: Any, found: Any, tmp_path: Path
) -> None:
    on, off = found, job(data, Averages(grid=False)).run(tmp_path)
    for move in ("shift", "rotation"):
        assert on[f"smoothness/equivariance/{move}_latent"].value == pytest.approx(0.0, abs=1e-6)
        assert on[f"smoothness/equivariance/{move}_pixels"].value == pytest.approx(0.0, abs=1e-6)
    assert {"smoothness/equivariance/scale_latent", "smoothness/spectrum/high_share"} < set(on)
    estimate = on["smoothness/spectrum/high_share"]
    assert estimate.value == pytest.approx(1.0)  # a 2 x 2 grid has no frequency below half a cycle
    assert set(on) - set(off) == {name for name in on if "equivariance" in name or "spectrum" in name}
    assert all(off[name] == on[name] for name in off)


def test_the_unit_of_the_latent_does_not_matter(data: Any, found: Any, tmp_path: Path) -> None:
    first, second = found, job(data, Averages(20.0), sigma=10 * SIGMA).run(tmp_path)
    for name, estimate in first.items():
        assert second[name].value == pytest.approx(estimate.value, rel=1e-3, abs=1e-6), name


@pytest.mark.slow
def test_neither_a_rerun_nor_the_batch_size_changes_a_metric(data: Any, tmp_path: Path) -> None:
    first = job(data).run(tmp_path)
    assert job(data).run(tmp_path) == first
    for name, estimate in job(data, batch_size=5).run(tmp_path).items():
        assert estimate.value == pytest.approx(first[name].value, rel=1e-4, abs=1e-6), name
    assert job(data, seed=1).run(tmp_path)["smoothness/mse/eps=0.2"] != first["smoothness/mse/eps=0.2"]


def test_a_constant_channel_is_not_perturbed(data: Any, found: Any, tmp_path: Path) -> None:
    still = job(data, sigma=torch.tensor([0.0, 0.25, 1.0])).run(tmp_path)
    assert still["smoothness/mse/eps=0.2"].value < found["smoothness/mse/eps=0.2"].value
    assert all(torch.tensor(estimate.value).isfinite() for estimate in still.values())


def test_infinite_metrics_have_no_slope(data: Any, tmp_path: Path) -> None:
    class Exact(Averages):
        def encode(self, images: Tensor) -> Posterior:
            return Posterior(mean=images.flatten(2))

        def decode(self, z: Tensor) -> Tensor:
            return z.unflatten(2, (8, 8))

    def decibel(images: Tensor, recon: Tensor) -> Tensor:
        return -10 * squared(images, recon).log10()

    tokenizer = Exact()
    tokenizer.latent = LatentSpec(3, 64)
    exact = job(data, tokenizer, sigma=torch.full((64,), 0.2))
    object.__setattr__(exact.perturbation, "metrics", {"psnr": decibel})
    found = exact.run(tmp_path)
    assert found["smoothness/psnr/eps=0"].value == torch.inf
    assert not {"smoothness/psnr/slope", "smoothness/psnr/area"} & set(found)


def test_the_area_is_also_given_relative_to_the_value_without_noise(data: Any, tmp_path: Path) -> None:
    class Likeness:
        higher_is_better = True

        def __init__(self, factor: float):
            self.factor = factor

        def __call__(self, images: Tensor, recon: Tensor) -> Tensor:
            return self.factor * (1 - squared(images, recon))

    def areas(factor: float, **settings: Any) -> dict[str, Any]:
        measured = job(data, **settings)
        object.__setattr__(measured.perturbation, "metrics", {"likeness": Likeness(factor)})
        return measured.run(tmp_path)

    one, ten = areas(1.0), areas(10.0)
    name = "smoothness/likeness/relative_area"
    assert one[name].value == pytest.approx(
        one["smoothness/likeness/area"].value / one["smoothness/likeness/eps=0"].value
    )
    assert one[name].low < one[name].value < one[name].high
    assert ten[name].value == pytest.approx(one[name].value)
    assert name not in areas(1.0, levels=[0.1, 0.2])


def test_it_writes_figures(found: Any, left: Path) -> None:
    assert {path.name for path in left.iterdir()} == {"perturbation.png", "perturbed.png", "ways.png", "spectrum.png"}


def test_it_warns_when_the_iteration_has_not_converged(
    data: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job(data, iterations=2).run(tmp_path)
    assert "Lipschitz constants still change by up to" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": [0.0]}, "at least two ascending numbers"),
        ({"levels": [0.1, 0.0]}, "at least two ascending numbers"),
        ({"levels": "some"}, "at least two ascending numbers"),
        ({"num_points": 4}, "must be odd"),
        ({"num_pairs": 0}, "num_pairs must be at least 1, got 0"),
        ({"pixel_noise": 0.0}, "pixel_noise must be positive"),
        ({"seed": -1}, "job.seed must be at least 0"),
        ({"iterations": 1}, "iterations must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(data: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        job(data, **settings)


def test_too_few_images_are_refused(data: Any) -> None:
    data.test = TensorDataset(*(part[:3] for part in data.test.tensors))
    with pytest.raises(ValueError, match="at least 4 images, and the protocol's split has 3"):
        job(data)


def test_figures_show_the_measured_images(data: Any, found: Any, left: Path) -> None:
    from PIL import Image

    sheet = Image.open(left / "perturbed.png")
    rows, columns = sheet.height // 98, sheet.width // 98  # images of 8 px enlarged to 96, gaps of 2
    assert (rows, columns) == (4, 8)
    first = torch.tensor(sheet.getpixel((50, 50)), dtype=torch.uint8)
    torch.testing.assert_close(
        from_uint8(first[:, None, None]).flatten(), data.test[0][0][:, 4, 4], atol=1 / 127, rtol=0
    )
