"""Job `probe`: latents of any tokenizer are read, and what the latents hide is not found."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ldbench.core.posterior import Posterior
from ldbench.jobs.probe import Probe


class Brightness(nn.Module):
    """Latents (B, 2, 3): the mean of each colour, twice, with a posterior that no figure may depend on."""

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = factor

    def encode(self, images: Tensor) -> Posterior:
        mean = self.factor * images.mean(dim=(2, 3))[:, None].expand(-1, 2, -1)
        return Posterior(mean=mean, logvar=torch.full_like(mean, 9.0))


@pytest.fixture
def data() -> Any:
    """Three classes by colour."""
    rng = torch.Generator().manual_seed(0)

    def split(count: int) -> TensorDataset:
        y = torch.arange(count) % 3
        return TensorDataset(0.3 * torch.randn(count, 3, 4, 4, generator=rng) + torch.eye(3)[y][:, :, None, None], y)

    return SimpleNamespace(name="colours", num_classes=3, train=split(90), test=split(45))


def job(tokenizer: nn.Module, data: Any, **said: Any) -> Probe:
    settings = {"num_train": None, "seed": 0, "penalty": 1.0, "max_iter": 1000, "batch_size": 16, **said}
    Probe.check(settings)
    return Probe(tokenizer=tokenizer, data=data, workers=0, device=torch.device("cpu"), **settings)


def test_it_reads_classes_off_the_posterior_means(data: Any, tmp_path: Path) -> None:
    found = job(Brightness(), data).run(tmp_path / "figures")
    assert set(found) == {"probe/accuracy", "probe/chance"}
    assert found["probe/accuracy"].value == 1.0
    assert found["probe/accuracy"].low < 1.0 == found["probe/accuracy"].high
    assert found["probe/chance"].value == pytest.approx(1 / 3)
    assert not (tmp_path / "figures").exists()


def test_a_latent_that_holds_nothing_is_read_by_chance(data: Any, tmp_path: Path) -> None:
    found = job(Brightness(factor=0.0), data).run(tmp_path)
    assert found["probe/accuracy"].value == pytest.approx(found["probe/chance"].value)


def test_neither_a_rerun_nor_the_batch_size_changes_a_figure(data: Any, tmp_path: Path) -> None:
    first = job(Brightness(), data, num_train=20).run(tmp_path)
    assert job(Brightness(), data, num_train=20).run(tmp_path) == first
    assert job(Brightness(), data, num_train=20, batch_size=7).run(tmp_path) == first


def test_it_reads_as_many_training_images_as_it_is_told(data: Any) -> None:
    some, more = (set(job(Brightness(), data, num_train=count).chosen(data.train).indices) for count in (20, 40))
    other = set(job(Brightness(), data, num_train=20, seed=1).chosen(data.train).indices)
    assert len(some) == 20
    assert some < more
    assert some != other
    assert job(Brightness(), data, num_train=90).chosen(data.train) is data.train


def test_data_of_one_class_is_refused(data: Any) -> None:
    data.num_classes = 1
    with pytest.raises(ValueError, match="A probe tells classes apart, and colours has 1"):
        job(Brightness(), data)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"num_train": 1}, "num_train must be a whole number of at least 2, or null for all, got 1"),
        ({"num_train": "most"}, "num_train must be a whole number"),
        ({"penalty": 0.0}, "penalty must be positive"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(data: Any, said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        job(Brightness(), data, **said)
