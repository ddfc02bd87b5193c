"""A reference holds some images of a split, and the laws of all of it where these are Inception-v3's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.pixels import to_uint8
from ldbench.jobs._set_metrics import SetMeasures
from ldbench.jobs.reference import Reference
from ldbench.metrics.feature_set import gather

from .conftest import Colours


def make(data: Any, folder: Path, *, standard: bool = True, split: str = "train", num_images: int = 20) -> Reference:
    extractor = Colours(standard)
    facts = {"kept": 100, "folder": folder, "workers": 0, "device": torch.device("cpu")}
    metrics = {"fd": instantiate(Registry().option("distribution", "fd"))}
    sets = SetMeasures(label="colours", extractor=extractor, digest="a", metrics=metrics, **facts)
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


def test_the_file_tells_the_laws_of_the_whole_split_and_holds_some_of_its_images(data: Any, tmp_path: Path) -> None:
    job = make(data, tmp_path / "features")
    found = job.run(tmp_path)
    assert (found["reference/images"].value, found["reference/statistics_of"].value) == (20, 50)
    images, seen = to_uint8(data.train.tensors[0]), Colours(True).extract(to_uint8(data.train.tensors[0]))
    with np.load(tmp_path / "reference.npz") as file:
        assert file["arr_0"].shape == (20, 4, 4, 3)
        rows = {image.permute(1, 2, 0).numpy().tobytes(): place for place, image in enumerate(images)}
        places = [rows[image.tobytes()] for image in file["arr_0"]]
        assert places == sorted(set(places)), "each once, in the order of the split"
        assert file["arr_1"].tolist() == [place % 3 for place in places]
        for keys, features in ((("mu", "sigma"), seen.features), (("mu_s", "sigma_s"), seen.spatial)):
            np.testing.assert_allclose(file[keys[0]], features.double().mean(dim=0), rtol=1e-9)
            np.testing.assert_allclose(file[keys[1]], np.cov(features.double().T), rtol=1e-6, atol=1e-9)


def test_what_is_written_is_held_against_as_the_split_itself(data: Any, tmp_path: Path) -> None:
    job = make(data, tmp_path / "features", num_images=50)
    job.run(tmp_path)
    samples = gather(Colours(True).extract(to_uint8(data.test.tensors[0])), {"normal"})
    sides = [
        job.sets.held_against(data, name, pixel_rule="round", batch_size=8, num_processes=1)
        for name in ("train", str(tmp_path / "reference.npz"))
    ]
    ours, theirs = (job.sets.metrics["fd"](samples, side, paired=False).value for side in sides)
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_another_extractor_leaves_no_statistics(data: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = make(data, tmp_path / "features", standard=False, split="all", num_images=1000).run(tmp_path)
    assert (found["reference/images"].value, found["reference/statistics_of"].value) == (80, 0)
    assert "they are of Inception-v3's features, and the protocol looks through colours" in caplog.text
    with np.load(tmp_path / "reference.npz") as file:
        assert set(file.files) == {"arr_0", "arr_1"}


@pytest.mark.parametrize(
    ("key", "value"), [("split", "heldout"), ("num_images", 0), ("batch_size", 1.5), ("num_processes", 0)]
)
def test_settings_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"job.{key} must be"):
        Reference.check({"split": "train", "num_images": 10, "batch_size": 2, "num_processes": 1, key: value})
