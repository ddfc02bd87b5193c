"""A reference contains some images of a split, and with Inception-v3 the statistics of the whole split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.pixels import to_uint8
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.jobs.reference import Reference
from ldbench.metrics.feature_set import gather

from .conftest import Colors


def make(data: Any, folder: Path, *, standard: bool = True, split: str = "train", num_images: int = 20) -> Reference:
    extractor = Colors(standard)
    facts = {"kept": 100, "folder": folder, "workers": 0, "device": torch.device("cpu")}
    metrics = {"fd": instantiate(Registry().option("distribution", "fd"))}
    sets = SetEvaluator(label="colors", extractor=extractor, key="a", metrics=metrics, **facts)
    return Reference(
        data=data,
        sets=sets,
        split=split,
        num_images=num_images,
        pixel_rule="round",
        batch_size=8,
        num_processes=1,
        workers=0,
    )


def test_the_file_contains_the_statistics_of_the_whole_split_and_some_of_its_images(data: Any, tmp_path: Path) -> None:
    job = make(data, tmp_path / "features")
    found = job.run(tmp_path)
    assert (found["reference/images"].value, found["reference/statistics_of"].value) == (20, 50)
    images, expected = to_uint8(data.train.tensors[0]), Colors(True).extract(to_uint8(data.train.tensors[0]))
    with np.load(tmp_path / "reference.npz") as file:
        assert file["arr_0"].shape == (20, 4, 4, 3)
        rows = {image.permute(1, 2, 0).numpy().tobytes(): index for index, image in enumerate(images)}
        indices = [rows[image.tobytes()] for image in file["arr_0"]]
        assert indices == sorted(set(indices)), "each once, in the order of the split"
        assert file["arr_1"].tolist() == [index % 3 for index in indices]
        for keys, features in ((("mu", "sigma"), expected.features), (("mu_s", "sigma_s"), expected.spatial)):
            np.testing.assert_allclose(file[keys[0]], features.double().mean(dim=0), rtol=1e-9)
            np.testing.assert_allclose(file[keys[1]], np.cov(features.double().T), rtol=1e-6, atol=1e-9)


def test_the_file_gives_the_same_distance_as_the_split_itself(data: Any, tmp_path: Path) -> None:
    job = make(data, tmp_path / "features", num_images=50)
    job.run(tmp_path)
    samples = gather(Colors(True).extract(to_uint8(data.test.tensors[0])), {"normal"})
    sides = [
        job.sets.reference_features(data, name, pixel_rule="round", batch_size=8, num_processes=1)
        for name in ("train", str(tmp_path / "reference.npz"))
    ]
    ours, theirs = (job.sets.metrics["fd"](samples, side, paired=False).value for side in sides)
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_another_extractor_writes_no_statistics(data: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = make(data, tmp_path / "features", standard=False, split="all", num_images=1000).run(tmp_path)
    assert (found["reference/images"].value, found["reference/statistics_of"].value) == (80, 0)
    assert "they are of Inception-v3's features, and the protocol's extractor is colors" in caplog.text
    with np.load(tmp_path / "reference.npz") as file:
        assert set(file.files) == {"arr_0", "arr_1"}


@pytest.mark.parametrize(
    ("key", "value"), [("split", "heldout"), ("num_images", 0), ("batch_size", 1.5), ("num_processes", 0)]
)
def test_settings_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"job.{key} must be"):
        Reference.check({"split": "train", "num_images": 10, "batch_size": 2, "num_processes": 1, key: value})
