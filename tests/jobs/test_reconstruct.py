"""Job `reconstruct`: distances on features beside the figures of each image."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ldbench.core.pixels import to_uint8
from ldbench.core.posterior import Posterior
from ldbench.jobs.reconstruct import Reconstruct
from ldbench.metrics.distribution import frechet_distance


class Darker(nn.Module):
    """Gives images back darker by `by`."""

    def __init__(self, by: float):
        super().__init__()
        self.by = by

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(mean=images.flatten(2))

    def decode(self, z: Tensor) -> Tensor:
        return z.unflatten(2, (4, 4)) - self.by


class Colours(nn.Module):
    """The mean of each colour, in levels."""

    def features(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean(dim=(2, 3))


@pytest.fixture
def data() -> Any:
    train, test = (torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(count)) for count in (50, 30))
    return SimpleNamespace(train=TensorDataset(train, torch.zeros(50)), test=TensorDataset(test, torch.zeros(30)))


def job(data: Any, by: float, *, batch_size: int = 8, **said: Any) -> Reconstruct:
    facts = {"extractors": {"colours": Colours()}, "distances": {"fd": frechet_distance}, "metrics": {}, "names": [str(i) for i in range(30)], **said}
    return Reconstruct(
        tokenizer=Darker(by),
        data=data,
        images=data.test,
        **facts,
        pixel_rule="round",
        latent="mean",
        seed=0,
        batch_size=batch_size,
        workers=0,
        device=torch.device("cpu"),
        save_images=False,
    )


def test_its_distance_is_that_of_the_reconstructions_to_their_originals(data: Any, tmp_path: Path) -> None:
    levels = 20 / 127.5
    found = job(data, levels).run(tmp_path)
    assert found["rfd_colours"].value == pytest.approx(3 * 20**2, rel=1e-2)  # every colour is 20 levels darker
    assert job(data, 0.0).run(tmp_path)["rfd_colours"].value == pytest.approx(0.0, abs=1e-9)


def test_its_floor_is_the_distance_of_training_to_held_out_images(data: Any, tmp_path: Path) -> None:
    train, test = (Colours().features(to_uint8(split.tensors[0])) for split in (data.train, data.test))
    found = job(data, 0.3).run(tmp_path)
    assert found["rfd_colours_floor"].value == pytest.approx(frechet_distance(train, test), rel=1e-9)
    assert found["rfd_colours_floor"].low is None


def test_distances_do_not_depend_on_the_batch_size(data: Any, tmp_path: Path) -> None:
    small, large = (job(data, 0.1, batch_size=size).run(tmp_path) for size in (7, 30))
    assert small["rfd_colours"].value == pytest.approx(large["rfd_colours"].value, rel=1e-9)


def test_without_an_extractor_there_are_no_distances(data: Any, tmp_path: Path) -> None:
    assert job(data, 0.1, extractors={}, distances={}).run(tmp_path) == {}


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Reconstruct.check({"batch_size": 0, "save_images": False})
