"""All data have the properties of `ImageData`, and a protocol."""

from pathlib import Path

import pytest
import torch
from tests import small_datasets
from tests.small_containers import write, write_shards

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.interfaces import ImageData
from ldbench.pipeline import measurement_checks, pipeline


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Small folders in the layouts that image yamls ask for."""
    from PIL import Image

    def fill(folder: Path) -> None:
        folder.mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 30), (i * 40, 100, 200)).save(folder / f"{i}.png")

    for split in ("train", "val"):
        for label in ("a", "b"):
            fill(tmp_path / "classes" / split / label)
    for label in ("a", "b"):
        fill(tmp_path / "tiny" / "train" / label / "images")
    fill(tmp_path / "tiny" / "val" / "images")
    (tmp_path / "tiny" / "val" / "val_annotations.txt").write_text(
        "".join(f"{i}.png\t{'ab'[i % 2]}\t0\t0\t9\t9\n" for i in range(3))
    )
    fill(tmp_path / "flat")
    write_shards(tmp_path / "shards")
    write(tmp_path / "parquet", "parquet", tmp_path / "record")
    layouts = {
        "folder": "classes",
        "imagenet256": "classes",
        "imagenet512": "classes",
        "celebahq256": "flat",
        "tinyimagenet": "tiny",
        "shards": "shards",
        "hf": "parquet",
    }
    named = {name: tmp_path / layout for name, layout in layouts.items()}
    named |= dict.fromkeys(("fashion_mnist", "mnist"), small_datasets.FASHION_MNIST)
    return named | small_datasets.write_all(tmp_path / "torchvision", monkeypatch)


@pytest.mark.parametrize("name", sorted(Registry().options("data")))
def test_data_have_their_properties(name: str, roots: dict[str, Path], tmp_path: Path) -> None:
    own = Registry().options("data")[name].get("image_size", 24)  # some yamls are of one size
    size = own if isinstance(own, int) else 24
    extra = {"shapes": ["data.num_train=16", "data.num_test=8"]}.get(
        name, [f"data.root={roots[name]}", f"paths.artifacts={tmp_path / 'artifacts'}"] if name in roots else []
    )
    cfg = ldbench.compose("train", [f"data={name}", f"tokenizer.image_size={size}", *extra])
    data, again = instantiate(cfg.data), instantiate(cfg.data)
    assert isinstance(data, ImageData)
    assert data.image_size == size
    assert len(data.class_names) == data.num_classes
    assert data.fingerprint == again.fingerprint
    for split in (data.train, data.test):
        image, label = split[len(split) - 1]
        assert image.shape == (3, size, size)
        assert image.dtype == torch.float32
        assert image.min() >= -1
        assert image.max() <= 1
        assert 0 <= label < data.num_classes


@pytest.mark.parametrize("name", sorted(Registry().options("data")))
def test_data_of_ours_have_a_protocol_by_their_name(name: str) -> None:
    cfg = ldbench.compose("run", [f"data={name}", "protocol.split=all"])
    protocol = pipeline.get_protocol(cfg)
    assert protocol.name == name
    assert protocol.split == "all"
    measurement_checks.validate_protocol(protocol)
