"""Where a tokenizer comes from: released weights become an artifact, and an artifact is taken as it is."""

import argparse
import csv
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import ldbench
from ldbench.artifacts import store
from ldbench.layers.position import sincos_2d
from ldbench.pipeline import pipeline
from ldbench.results import records

MANIFEST = Path(__file__).parents[1] / "parity" / "data" / "manifests" / "vmae_f8d16_128_train.json"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint in the official layout, at 128 px, with numbers of no meaning."""
    rng = torch.Generator().manual_seed(0)
    shapes = json.loads(MANIFEST.read_text())
    state = {key: 0.02 * torch.randn(shape, generator=rng) for key, shape in shapes.items()}
    state |= {key: sincos_2d((16, 16), width=192, dtype=torch.float32) for key in ("pos_embed", "decoder_pos_embed")}
    path = tmp_path_factory.mktemp("released") / "vmaef8d16.pth"
    torch.save(
        {"model": state, "optimizer": {}, "epoch": 90, "scaler": {}, "args": argparse.Namespace(batch_size=128)}, path
    )
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of images of several sizes, shapes and formats."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = torch.Generator().manual_seed(0)
    for i, (size, kind) in enumerate(
        [((200, 140), "jpg"), ((131, 257), "png"), ((128, 128), "webp"), ((90, 300), "bmp")]
    ):
        pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=rng)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.{kind}")
    return folder


def imported(tmp_path: Path, released: Path, *overrides: str) -> Callable:
    words = [
        "tokenizer=vmae_f8d16",
        f"tokenizer.weights={released}",
        "tokenizer.image_size=128",
        f"paths.root={tmp_path}",
        "trainer.accelerator=cpu",
    ]
    return ldbench.compose("run", [*words, *overrides])


@pytest.mark.slow
def test_released_weights_become_an_artifact_and_are_measured_on_ones_own_images(
    tmp_path: Path, released: Path, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = pipeline.run(imported(tmp_path, released, "data=folder", f"data.root={photographs}", "protocol.split=all"))
    official = ldbench.load_official("vmae_f8d16", released)
    loaded = ldbench.load(folder)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in official.state_dict().items())
    assert "Imported vmaef8d16.pth" in caplog.text
    assert not (tmp_path / "runs").exists(), "nothing was trained"
    (path,) = (tmp_path / "records").glob("*.json")
    record = records.read(path)
    assert record.artifacts["tokenizer"] == folder.name
    figures = path.with_suffix("")
    assert (figures / "reconstructions.png").is_file()
    with (figures / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["0.jpg", "1.png", "2.webp", "3.bmp"] or len(rows) == 4
    assert sum(float(row["psnr"]) for row in rows) / 4 == pytest.approx(record.metrics["psnr"].value, rel=1e-9)
    for row in rows:
        for kind in ("originals", "reconstructions"):
            assert Image.open(figures / kind / f"{row['image']}.png").size == (128, 128)


@pytest.mark.slow
def test_the_digest_of_an_import_covers_the_files_content_and_not_its_place(tmp_path: Path, released: Path) -> None:
    small = ("data=shapes", "data.num_train=8", "data.num_test=8")
    first = pipeline.run(imported(tmp_path, released, *small))
    copied = tmp_path / "elsewhere.pth"
    shutil.copy(released, copied)
    assert pipeline.run(imported(tmp_path, copied, *small)) == first
    with pytest.raises(ValueError, match=r"latent_channels is 4, and the file holds 16"):
        pipeline.run(imported(tmp_path, copied, *small, "tokenizer.model.latent_channels=4"))
    content = torch.load(released, weights_only=False)
    content["model"]["mask_token"] = content["model"]["mask_token"] + 1
    torch.save(content, copied)
    assert pipeline.run(imported(tmp_path, copied, *small)).name != first.name


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["tokenizer.image_size=256"],
            r"tokenizer.image_size is 256, and the file holds 128.\nSet tokenizer.image_size=128",
        ),
        (["tokenizer.model.latent_channels=32"], r"latent_channels is 32, and the file holds 16"),
        (
            ["tokenizer.name=mine"],
            r"There is no official tokenizer named 'mine'\..* Known: dc_ae_f32c32, .*",
        ),
        (["tokenizer.weights=/nowhere.pth"], "There is no file /nowhere.pth"),
        (["data.image_size=64"], "takes 128 px images, but data shapes hands over 64 px"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_kept(
    tmp_path: Path, released: Path, overrides: list[str], told: str
) -> None:
    small = ("data=shapes", "data.num_train=8", "data.num_test=8")
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        pipeline.run(imported(tmp_path, released, *small, *overrides))
    assert not list(tmp_path.glob("artifacts/tokenizers/vmae*"))


def test_an_artifact_is_taken_as_it_is_and_brings_its_size(tmp_path: Path, already: Callable[..., Path]) -> None:
    folder = already()
    words = [
        "tokenizer=artifact",
        f"tokenizer.path={folder}",
        "data=shapes",
        "data.num_train=8",
        "data.num_test=8",
        f"paths.root={tmp_path}",
    ]
    assert pipeline.run(ldbench.compose("run", [*words, "trainer.accelerator=cpu"])) == folder
    found = {records.read(path).subject["data"] for path in (tmp_path / "records").glob("*.json")}
    assert found == {"digits", "shapes"}


def test_pictures_are_made_for_a_record_that_has_none_yet(tmp_path: Path, already: Callable[..., Path]) -> None:
    folder = already()
    (path,) = (tmp_path / "records").glob("*.json")
    assert not (path.with_suffix("") / "images.csv").exists()
    before = records.read(path).metrics
    words = [
        "tokenizer=artifact",
        f"tokenizer.path={folder}",
        f"paths.root={tmp_path}",
        "trainer.accelerator=cpu",
        "data.subset=0.1",
        "protocol=default",
    ]
    pipeline.run(ldbench.compose("run", words))
    assert (path.with_suffix("") / "images.csv").is_file()
    assert len(list((path.with_suffix("") / "originals").iterdir())) == 360
    assert records.read(path).metrics == before


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/nowhere", "is no complete artifact: it has no manifest.json"),
        (None, "tokenizer=artifact needs tokenizer.path"),
    ],
)
def test_an_artifact_that_is_not_there_is_told(tmp_path: Path, path: str | None, told: str) -> None:
    words = ["tokenizer=artifact", f"paths.root={tmp_path}", *([f"tokenizer.path={path}"] if path else [])]
    with pytest.raises(ValueError, match=told):
        pipeline.run(ldbench.compose("run", words))


def test_an_artifact_of_a_newer_schema_is_refused(already: Callable[..., Path]) -> None:
    folder = already()
    for name in (store.CONFIG, store.MANIFEST):
        content = json.loads((folder / name).read_text())
        store.write_json(folder / name, {**content, "schema": store.SCHEMA + 1})
    with pytest.raises(
        ValueError, match=f"schema {store.SCHEMA + 1}, and this version of ldbench reads {store.SCHEMA}"
    ):
        ldbench.load(folder)
