"""Job `interpolation`: the exact distance of a known mixture, that of reconstructions at 0, and what it refuses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.jobs.conftest import Colors
from torch import Tensor, nn

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.posterior import Posterior
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.jobs.interpolation import Interpolation
from ldbench.jobs.reconstruct import Reconstruct
from ldbench.pipeline import measurement_checks, pipeline


class Pixels(nn.Module):
    """The latent of an image is its pixels; decoded darker by `by`."""

    def __init__(self, by: float = 0.0):
        super().__init__()
        self.by = by

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(mean=images.flatten(2))

    def decode(self, z: Tensor) -> Tensor:
        return z.unflatten(2, (4, 4)) - self.by


class Stored:
    """A store of the latents of some images, with mirrored views behind them that count as no neighbors."""

    def __init__(self, images: Tensor):
        self.z = torch.cat([images, -images]).flatten(2)
        self.manifest = SimpleNamespace(num_images=len(images))

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.z[rows][:, None], torch.zeros(len(rows))


def evaluator(folder: Path, *, standard: bool = False) -> SetEvaluator:
    metrics = {name: instantiate(Registry().option("distribution", name)) for name in ("fd", "kid")}
    facts = {"kept": 100, "folder": folder, "workers": 0, "device": torch.device("cpu")}
    return SetEvaluator(label="colors", extractor=Colors(standard), key="a", metrics=metrics, **facts)


def job(data: Any, folder: Path, *, standard: bool = False, **changes: Any) -> Interpolation:
    node = ldbench.compose("run", ["job=interpolation"]).job
    settings = {
        **{key: node[key] for key in node if key != "_target_"},
        **{"tokenizer": Pixels(), "data": data, "train_latents": Stored(data.train.tensors[0])},
        **{"sets": evaluator(folder, standard=standard), "pixel_rule": "round"},
        **{"workers": 0, "device": torch.device("cpu"), "batch_size": 8},
        **changes,
    }
    return Interpolation(**settings)


def test_of_a_tokenizer_without_loss_it_is_the_exact_distance_of_the_mixture(data: Any, tmp_path: Path) -> None:
    gray = torch.tensor([0.25, -0.5, 0.75]).view(3, 1, 1).expand(3, 4, 4)
    stored = Stored(gray.expand(10, -1, -1, -1))  # every neighbor is this image
    found = job(data, tmp_path, train_latents=stored, path="linear").run(tmp_path)["ifd_colors"]
    colors = 127.5 * (data.test.tensors[0].double().mean(dim=(2, 3)) + 1)
    # halfway: half of the difference of means, and half of every deviation
    shift = (colors.mean(dim=0) - 127.5 * (gray[:, 0, 0].double() + 1)) / 2
    expected = shift.square().sum() + torch.cov(colors.T).trace() / 4
    assert found.value == pytest.approx(expected.item(), rel=2e-3)  # of pixels of 8 bits
    assert found.low <= found.value <= found.high
    assert (tmp_path / "interpolations.png").is_file()


@pytest.mark.parametrize("path", ["slerp", "linear"])
def test_at_alpha_zero_it_is_the_distance_of_the_reconstructions(data: Any, tmp_path: Path, path: str) -> None:
    tokenizer, sets = Pixels(by=0.2), evaluator(tmp_path)
    found = job(data, tmp_path, tokenizer=tokenizer, alpha=0.0, path=path).run(tmp_path)
    reconstruct = Reconstruct(
        **{"tokenizer": tokenizer, "data": data, "images": data.test, "names": [str(i) for i in range(30)]},
        **{"metrics": {}, "sets": sets, "split": "test", "pixel_rule": "round", "latent": "mean", "seed": 0},
        **{"batch_size": 8, "num_processes": 1, "workers": 0, "device": torch.device("cpu"), "save_images": False},
    )
    assert found == {"ifd_colors": reconstruct.run(tmp_path / "rec")["rfd_colors"]}


def test_it_is_called_ifid_with_the_standard_network_alone(data: Any, tmp_path: Path) -> None:
    measurement = job(data, tmp_path, standard=True)
    assert measurement.run(tmp_path).keys() == {"ifid"}
    assert measurement.higher_is_better == {"ifid": False}


def test_draws_repeat_and_are_by_the_seed_and_not_by_the_batches(data: Any, tmp_path: Path) -> None:
    z = data.test.tensors[0].flatten(1)
    first, again = (job(data, tmp_path, batch_size=size).chosen_neighbors(z) for size in (8, 30))
    assert torch.equal(first, again)
    assert not torch.equal(first, job(data, tmp_path, seed=1).chosen_neighbors(z))
    assert first.max() < len(data.train), "mirrored views are no neighbors"
    values = [job(data, tmp_path, batch_size=size).run(tmp_path)["ifd_colors"].value for size in (8, 30)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_with_one_neighbor_and_alpha_one_it_decodes_the_nearest_training_images(data: Any, tmp_path: Path) -> None:
    test, train = (images.tensors[0].flatten(1) for images in (data.test, data.train))
    nearest = torch.nn.functional.cosine_similarity(test[:, None], train[None], dim=2).argmax(dim=1)
    measurement = job(data, tmp_path, neighbors=1, alpha=1.0)
    chosen = measurement.chosen_neighbors(test)
    assert torch.equal(chosen, nearest)
    z = measurement.interpolated(data.test.tensors[0].flatten(2), chosen)
    torch.testing.assert_close(z, data.train.tensors[0].flatten(2)[nearest])


def test_settings_out_of_range_and_a_protocol_without_the_distance_are_refused(data: Any, tmp_path: Path) -> None:
    good = {"neighbors": 10, "alpha": 0.5, "path": "slerp", "seed": 0, "batch_size": 8}
    for key, value in (("neighbors", 0), ("alpha", 1.5), ("path", "arc"), ("seed", -1), ("batch_size", 0)):
        with pytest.raises(ValueError, match=f"job.{key} must be"):
            Interpolation.check({**good, key: value})
    with pytest.raises(ValueError, match=r"job\.neighbors=51 of 50 training images"):
        job(data, tmp_path, neighbors=51)
    cfg = ldbench.compose("run", ["job=interpolation", "protocol=default"])
    with pytest.raises(ValueError, match=r"needs fd.*protocol.distribution=\[fd\]"):
        measurement_checks.validate_job(cfg.job, pipeline.get_protocol(cfg))
