"""Job `probe`: analyses of latents of any tokenizer, chance without information, and no metrics that do not apply."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import ldbench
from ldbench.core.posterior import Posterior
from ldbench.jobs.probe import Probe
from ldbench.pipeline.stored_records import hashed_settings


class Brightness(nn.Module):
    """Latents (B, 2, 3): the mean of each color, twice, with a posterior on which no metric may depend."""

    patch_grid = (2, 2)

    def __init__(self, factor: float = 1.0, *, point: bool = False):
        super().__init__()
        self.factor = factor
        self.point = point
        self.decoder = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1), nn.Upsample(scale_factor=2))

    def encode(self, images: Tensor) -> Posterior:
        mean = self.factor * images.mean(dim=(2, 3))[:, None].expand(-1, 2, -1)
        return Posterior(mean=mean, logvar=None if self.point else torch.full_like(mean, 9.0))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z.mean(dim=1)[:, :, None, None].expand(-1, -1, 2, 2))


class ColorTeacher:
    """A teacher of mean colors, or for factor 0 of noise."""

    def __init__(self, factor: float):
        self.factor = factor

    def __call__(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        colors_of = images.mean(dim=(2, 3))[:, None].expand(-1, grid[0] * grid[1], -1)
        return self.factor * colors_of + (1 - self.factor) * torch.randn(
            colors_of.shape, generator=torch.Generator().manual_seed(len(images))
        )


@pytest.fixture
def data() -> Any:
    """Three classes by color."""
    rng = torch.Generator().manual_seed(0)

    def split(count: int) -> TensorDataset:
        y = torch.arange(count) % 3
        return TensorDataset(0.3 * torch.randn(count, 3, 4, 4, generator=rng) + torch.eye(3)[y][:, :, None, None], y)

    return SimpleNamespace(name="colors", num_classes=3, train=split(90), test=split(45))


OFF = {"linear": False, "neighbours": None, "dimension": False, "channels": False}


def job(tokenizer: nn.Module, data: Any, **settings: Any) -> Probe:
    node = ldbench.compose("run", ["job=probe"]).job
    settings = {key: node[key] for key in node if key != "_target_"} | {"num_train": None, "batch_size": 16} | settings
    Probe.check(settings)
    return Probe(
        tokenizer=tokenizer,
        data=data,
        teachers=lambda name: ColorTeacher(float(name)),
        workers=0,
        device=torch.device("cpu"),
        **settings,
    )


def test_it_reads_classes_off_the_posterior_means(data: Any, tmp_path: Path) -> None:
    probe = job(Brightness(), data)
    found = probe.run(tmp_path / "out")
    assert set(found) == {
        *("probe/accuracy", "probe/chance", "probe/knn_accuracy"),
        *("probe/intrinsic_dimension", "probe/effective_rank", "probe/effective_rank_channels"),
        *(
            "probe/collapsed_channels",
            "probe/collapsed_units",
            "probe/snr_db_min",
            "probe/snr_db_median",
            "probe/snr_db_max",
        ),
    }
    assert found["probe/knn_accuracy"].value > 0.9
    assert found["probe/accuracy"].value == 1.0
    assert found["probe/accuracy"].low < 1.0 == found["probe/accuracy"].high
    assert found["probe/chance"].value == pytest.approx(1 / 3)
    assert not (tmp_path / "out").exists()
    assert set(probe.per_image) == {"probe/accuracy", "probe/knn_accuracy"}
    for name, values in probe.per_image.items():
        assert (len(values), values.mean().item()) == (len(data.test), pytest.approx(found[name].value))


def test_a_constant_latent_is_at_chance(data: Any, tmp_path: Path) -> None:
    found = job(Brightness(factor=0.0), data, dimension=False).run(tmp_path)
    assert found["probe/accuracy"].value == pytest.approx(found["probe/chance"].value)
    assert found["probe/collapsed_channels"].value == 3
    assert found["probe/collapsed_units"].value == 6


def test_dimensions_and_signal_are_the_planted_ones(data: Any, tmp_path: Path) -> None:
    found = job(Brightness(), data).run(tmp_path)
    mean = torch.stack([image.mean(dim=(1, 2)) for image, _ in data.train]).double()
    assert 1.5 < found["probe/intrinsic_dimension"].value < 4.5  # three colors, in six numbers
    assert 2 < found["probe/effective_rank"].value <= 3.0001
    assert found["probe/effective_rank_channels"].value == pytest.approx(found["probe/effective_rank"].value)
    snr = 10 * (mean.var(dim=0, correction=0) / torch.tensor(9.0, dtype=torch.float64).exp()).log10()
    assert found["probe/snr_db_max"].value == pytest.approx(snr.max().item(), rel=1e-4)
    assert found["probe/collapsed_channels"].value == 3, "a posterior of variance e^9 dominates them"


def test_points_have_no_signal_to_noise_and_do_not_collapse(data: Any, tmp_path: Path) -> None:
    found = job(Brightness(point=True), data).run(tmp_path)
    assert not [name for name in found if "snr" in name]
    assert found["probe/collapsed_channels"].value == 0


def test_label_consistency_is_of_the_mean_over_tokens_and_on_request(data: Any, tmp_path: Path) -> None:
    class Cancelling(Brightness):
        """Tokens that are each the color or its opposite, whose mean is noise."""

        def encode(self, images: Tensor) -> Posterior:
            color = super().encode(images).mean[:, 0]
            noise = 0.01 * (images[:, :, 0, 0] - color)
            return Posterior(mean=torch.stack([color + noise, -color + noise], dim=1), logvar=None)

    cancelled = job(Cancelling(), data, **OFF, label_consistency=5).run(tmp_path)["probe/label_consistency"]
    probe = job(Brightness(), data, **OFF, label_consistency=5)
    found = probe.run(tmp_path)
    assert set(found) == {"probe/label_consistency"}
    estimate = found["probe/label_consistency"]
    assert cancelled.high < 0.6 < estimate.value <= estimate.high
    assert 0.8 < estimate.low < estimate.value
    values = probe.per_image["probe/label_consistency"]
    assert (len(values), values.mean().item()) == (len(data.test), pytest.approx(estimate.value))
    constant = job(Brightness(factor=0.0), data, **OFF, label_consistency=1000).run(tmp_path)
    assert constant["probe/label_consistency"].value == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match=r"job\.label_consistency must be at least 1"):
        job(Brightness(), data, label_consistency=0)


def test_without_label_consistency_records_have_the_ids_of_before() -> None:
    settings = ldbench.compose("run", ["job=probe"]).job
    assert "label_consistency" not in hashed_settings(Probe, settings)
    assert hashed_settings(Probe, {**settings, "label_consistency": 10})["label_consistency"] == 10


@pytest.mark.slow
def test_only_enabled_analyses_are_measured(data: Any, tmp_path: Path) -> None:
    assert set(job(Brightness(), data, **(OFF | {"linear": True})).run(tmp_path)) == {"probe/accuracy", "probe/chance"}
    assert set(job(Brightness(), data, **OFF, attentive=True).run(tmp_path)) == {"probe/attentive_accuracy"}
    assert set(job(Brightness(), data, **OFF, teacher="1").run(tmp_path)) == {"probe/cka_1"}
    assert set(job(Brightness(), data, **OFF, uniformity=True).run(tmp_path)) == {
        f"probe/uniformity/{n}" for n in ("density_cv", "gini", "entropy")
    }
    views = [f"probe/clustering/{view}_" for view in ("latent", "decoder")]
    clusters = {view + name for view in views for name in ("score", *(f"explained/k={2**i}" for i in range(1, 7)))}
    assert set(job(Brightness(), data, **OFF, clustering=True).run(tmp_path)) == clusters


def test_a_teacher_of_the_same_features_is_similar_and_one_of_noise_is_not(data: Any, tmp_path: Path) -> None:
    same, noise = (
        job(Brightness(), data, **OFF, teacher=name).run(tmp_path)[f"probe/cka_{name}"].value for name in ("1", "0")
    )
    assert same > 0.95
    assert abs(noise) < 0.3


def test_a_decoder_without_a_patch_grid_is_left_out_of_the_clusters(data: Any, tmp_path: Path) -> None:
    tokenizer = Brightness()
    tokenizer.decoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    found = job(tokenizer, data, **OFF, clustering=True).run(tmp_path)
    assert "probe/clustering/latent_score" in found
    assert not [name for name in found if "decoder" in name]


@pytest.mark.slow
def test_neither_a_rerun_nor_the_batch_size_changes_a_metric(data: Any, tmp_path: Path) -> None:
    tokenizer, settings = Brightness(), {"num_train": 20, "attentive": True, "uniformity": True}
    first = job(tokenizer, data, **settings).run(tmp_path)
    assert job(tokenizer, data, **settings, batch_size=7).run(tmp_path) == first


def test_it_uses_the_given_number_of_training_images(data: Any) -> None:
    some, more = (
        set(job(Brightness(), data, num_train=count).training_images(data.train).indices) for count in (20, 40)
    )
    other = set(job(Brightness(), data, num_train=20, seed=1).training_images(data.train).indices)
    assert len(some) == 20
    assert some < more
    assert some != other
    assert job(Brightness(), data, num_train=90).training_images(data.train) is data.train


def test_data_of_one_class_have_no_accuracy_and_all_else(
    data: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = set(job(Brightness(), data).run(tmp_path))
    data.num_classes = 1
    caplog.set_level(logging.INFO)
    assert set(job(Brightness(), data).run(tmp_path)) == both - {"probe/accuracy", "probe/chance", "probe/knn_accuracy"}
    assert "colors has only one class" in caplog.text
    with pytest.raises(ValueError, match="Probes distinguish classes, and colors has 1"):
        job(Brightness(), data, **(OFF | {"linear": True}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_train": 1}, "num_train must be a whole number of at least 2, or null for all, got 1"),
        ({"num_train": "most"}, "num_train must be a whole number"),
        ({"penalty": 0.0}, "penalty must be positive"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"neighbours": 0}, "neighbours must be at least 1, or null for none"),
        ({"collapse_below": 1.0}, "collapse_below must be between 0 and 1"),
        ({"num_points": 63}, "num_points must be at least 64"),
        (OFF, "No analysis is enabled. Enable at least one of job.linear, job.neighbours"),
    ],
)
def test_settings_out_of_range_are_refused(data: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        job(Brightness(), data, **settings)


@pytest.mark.curves
def test_the_picture_is_drawn_on_request_and_is_the_same_each_time(data: Any, tmp_path: Path) -> None:
    data.class_names = ("red", "green", "blue")
    pictures = []
    for name in ("one", "two"):
        found = job(Brightness(), data, picture=True, **OFF | {"dimension": True}).run(tmp_path / name)
        assert not [metric for metric in found if "picture" in metric]
        pictures.append((tmp_path / name / "latents.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")


@pytest.mark.curves
def test_collapsed_latents_and_few_images_have_a_picture_too(data: Any, tmp_path: Path) -> None:
    data.class_names = ("red", "green", "blue")
    job(Brightness(factor=0.0), data, picture=True, **OFF | {"channels": True}).run(tmp_path / "collapsed")
    data.test = TensorDataset(*data.test[:6])
    job(Brightness(), data, picture=True, **OFF | {"channels": True}).run(tmp_path / "few")
    assert len(list(tmp_path.rglob("latents.png"))) == 2


def test_a_picture_changes_no_id_and_is_made_for_a_record_that_has_none() -> None:
    node = ldbench.compose("run", ["job=probe"]).job
    plain, drawn = ({**node, "picture": picture} for picture in (False, True))
    assert hashed_settings(Probe, plain) == hashed_settings(Probe, drawn)
    assert (Probe.output_files(plain), Probe.output_files(drawn)) == ((), ("latents.png",))
