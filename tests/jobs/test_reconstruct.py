"""Job `reconstruct`: distances on features and metrics of each image."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.posterior import Posterior
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.jobs.reconstruct import Reconstruct
from ldbench.metrics.feature_set import Features


class Darker(nn.Module):
    """Reconstructs images darker by `by`."""

    def __init__(self, by: float):
        super().__init__()
        self.by = by

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(mean=images.flatten(2))

    def decode(self, z: Tensor) -> Tensor:
        return z.unflatten(2, (4, 4)) - self.by


class Colors(nn.Module):
    """The mean of each color in [0, 255]."""

    revision, provides, standard = 1, frozenset({"features"}), False

    def extract(self, images: Tensor) -> Features:
        assert images.dtype == torch.uint8
        return Features(images.float().mean(dim=(2, 3)))


def darker(images: Tensor, recon: Tensor) -> Tensor:
    return (images.double() - recon.double()).mean(dim=(1, 2, 3))


def squared(images: Tensor, recon: Tensor) -> Tensor:
    return (images.double() - recon.double()).square().mean(dim=(1, 2, 3))


@pytest.fixture
def data() -> Any:
    train, test = (torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(count)) for count in (50, 30))
    return SimpleNamespace(
        name="mine",
        fingerprint="1",
        train=TensorDataset(train, torch.zeros(50)),
        test=TensorDataset(test, torch.zeros(30)),
    )


def distance(name: str) -> Any:
    return instantiate(Registry().option("distribution", name))


def job(
    data: Any,
    by: float,
    folder: Path,
    *,
    batch_size: int = 8,
    split: str = "test",
    distances: tuple[str, ...] = ("fd",),
    **changes: Any,
) -> Reconstruct:
    facts = {"folder": folder / "features", "workers": 0, "device": torch.device("cpu")}
    sets = SetEvaluator(
        label="colors",
        extractor=Colors(),
        key="a",
        metrics={name: distance(name) for name in distances},
        kept=100,
        **facts,
    )
    images = {"test": data.test, "train": data.train, "all": data.train + data.test}[split]
    settings = {
        **{
            "tokenizer": Darker(by),
            "data": data,
            "images": images,
            "names": [str(i) for i in range(len(images))],
            "metrics": {},
            "split": split,
        },
        **{
            "sets": sets if distances else None,
            "pixel_rule": "round",
            "latent": "mean",
            "seed": 0,
            "batch_size": batch_size,
            "num_processes": 1,
        },
        **{"workers": 0, "device": torch.device("cpu"), "save_images": False},
    }
    return Reconstruct(**{**settings, **changes})


@pytest.mark.parametrize("split", ["test", "train", "all"])
def test_its_distance_is_that_of_the_reconstructions_to_their_originals(data: Any, tmp_path: Path, split: str) -> None:
    found = job(data, 20 / 127.5, tmp_path, split=split).run(tmp_path)["rfd_colors"]
    assert found.value == pytest.approx(3 * 20**2, rel=1e-2)  # every color is 20 levels darker
    assert found.low <= found.value <= found.high


def test_perfect_reconstructions_have_distance_zero(data: Any, tmp_path: Path) -> None:
    found = job(data, 0.0, tmp_path, distances=("fd", "kid", "precision")).run(tmp_path)
    assert found["rfd_colors"].value == 0.0
    assert found["kid_colors"].value == pytest.approx(0.0, abs=1e-9)
    assert "precision_colors" not in found, "a blur lies in the ball of its original too"


def test_values_of_single_images_are_left_beside_the_means(data: Any, tmp_path: Path) -> None:
    measurement = job(data, 0.3, tmp_path)
    found = measurement.run(tmp_path)
    for name, values in measurement.per_image.items():
        assert len(values) == len(data.test)
        assert values.mean().item() == pytest.approx(found[name].value, rel=1e-12)


def test_distances_do_not_depend_on_the_batch_size(data: Any, tmp_path: Path) -> None:
    every = ("fd", "kid", "precision", "recall", "density", "coverage")
    small, large = (
        job(data, 0.1, tmp_path / str(size), batch_size=size, distances=every).run(tmp_path) for size in (7, 30)
    )
    assert small.keys() == large.keys()
    for name in small:
        assert small[name].value == pytest.approx(large[name].value, rel=1e-9)


@pytest.mark.usefixtures("shares_by_forks")
def test_two_processes_give_the_same_for_each_image_and_the_set(data: Any, tmp_path: Path) -> None:
    metrics = {"darker": darker, "mse": squared}
    every = {"distances": ("fd", "kid", "precision"), "metrics": metrics, "save_images": True, "latent": "sample"}
    one, two = (job(data, 0.1, tmp_path, num_processes=count, **every).run(tmp_path / str(count)) for count in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        assert two[name].value == pytest.approx(one[name].value, rel=1e-9)
    assert [one[name] for name in metrics] == [two[name] for name in metrics]
    written = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "1", tmp_path / "2")
    ]
    assert written[0] == written[1]
    assert len(written[0]) == 2 * 30 + 2


def test_without_an_extractor_there_are_no_distances(data: Any, tmp_path: Path) -> None:
    assert job(data, 0.1, tmp_path, distances=()).run(tmp_path) == {}


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Reconstruct.check({"batch_size": 0, "num_processes": 1, "save_images": False})
