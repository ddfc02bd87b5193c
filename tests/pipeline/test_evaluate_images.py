"""`ldbench.evaluate`: the numbers of `job=evaluate`, of files and of images in memory; nothing is guessed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from tests.pipeline.strangers import tiny_images
from torch import Tensor

import ldbench
from ldbench.config.compose import Registry
from ldbench.core.pixels import from_uint8
from ldbench.metrics import adm_npz
from ldbench.pipeline import pipeline
from ldbench.pipeline.evaluate_images import in_memory
from ldbench.results import records, validation

NUM = 20
PIXELS = torch.randint(0, 256, (NUM, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ORIGINALS = torch.randint(0, 256, (NUM, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(NUM) % 10
COLORS = {"extractor": "colors", "distribution": ["fd", "kid", "precision"]}
WORDS = ["protocol.extractor=colors", "protocol.distribution=[fd,kid,precision]", "protocol.reconstruction=[psnr,mse]"]


@pytest.fixture(scope="module")
def searchpath(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A config folder with an extractor that needs no weights: the mean colors of an image."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "extractor").mkdir()
    (folder / "extractor" / "colors.yaml").write_text("_target_: tests.jobs.levels.Levels\n")
    return [str(folder)]


@pytest.fixture
def how(searchpath: list[str], tmp_path: Path) -> dict[str, Any]:
    return {"searchpath": searchpath, "root": tmp_path, "protocol": COLORS, "device": "cpu"}


def by_command(root: Path, searchpath: list[str], *words: str) -> dict[str, Any]:
    """The metrics of `python -m ldbench.run job=evaluate`, from its record."""
    registry = Registry(tuple(searchpath))
    cfg = ldbench.compose("run", ["job=evaluate", *words, *WORDS, f"paths.root={root}"], searchpath=searchpath)
    cfg.trainer.accelerator = "cpu"
    pipeline.run(cfg, registry)
    (path,) = (root / "records").glob("evaluate-*.json")
    return dict(records.read(path).metrics)


def pngs(folder: Path, pixels: Tensor, labels: Tensor | None = None) -> Path:
    for index, image in enumerate(pixels):
        path = folder / ("" if labels is None else str(int(labels[index]))) / f"{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rearrange(image, "c h w -> h w c").numpy()).save(path)
    return folder


def test_files_and_images_in_memory_have_the_numbers_of_the_command(how: dict[str, Any], tmp_path: Path) -> None:
    folder = pngs(tmp_path / "by", PIXELS, Y)
    adm_npz.write(tmp_path / "s.npz", [PIXELS], NUM, labels=Y)
    expected = by_command(tmp_path / "command", how["searchpath"], f"job.samples={folder}", "data=digits")
    assert {"gfd_colors", "kid_unweighted_colors", "gfd_colors_floor", "gfd_colors_of_heldout"} <= expected.keys()
    for samples, more in (
        (str(folder), {"batch_size": 7}),
        (tmp_path / "s.npz", {}),
        (from_uint8(PIXELS).double() / 2 + 0.5, {"labels": Y.numpy(), "value_range": (0, 1)}),
    ):
        found = ldbench.evaluate(samples, "digits", **how, **more)
        assert found.keys() == expected.keys()
        for name, estimate in expected.items():
            for field in ("value", "low", "high"):
                theirs = getattr(estimate, field)
                assert getattr(found[name], field) == (None if theirs is None else pytest.approx(theirs, rel=1e-12))
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("images", "value_range"),
    [
        (PIXELS, None),
        (rearrange(PIXELS, "n c h w -> n h w c").numpy(), None),
        (from_uint8(PIXELS), (-1, 1)),
        (from_uint8(PIXELS).half(), (-1, 1)),
        (PIXELS.double() / 255, (0, 1)),
        (PIXELS.numpy().astype(np.float32), (0, 255)),
    ],
    ids=["8 bits", "channels last", "-1 to 1", "half precision", "0 to 1", "0 to 255"],
)
def test_images_in_memory_are_written_as_the_pixels_that_they_mean(
    images: Any, value_range: tuple[float, float] | None, tmp_path: Path
) -> None:
    in_memory("samples", images, labels=Y, value_range=value_range, layout=None).write(tmp_path / "s.npz", "round")
    (written,) = adm_npz.read_images(tmp_path / "s.npz", NUM)
    assert torch.equal(written, PIXELS)
    assert torch.equal(adm_npz.read_labels(tmp_path / "s.npz"), Y)


def test_reconstructions_beside_their_originals_need_no_reference(how: dict[str, Any], tmp_path: Path) -> None:
    a, b = pngs(tmp_path / "a", PIXELS), pngs(tmp_path / "b", ORIGINALS)
    words = [f"job.samples={a}", f"job.originals={b}", "data=digits"]
    expected = by_command(tmp_path / "command", how["searchpath"], *words)
    settings = {**how, "protocol": {**COLORS, "reconstruction": ["psnr", "mse"]}}
    assert ldbench.evaluate(a, originals=b, **settings) == expected
    assert ldbench.evaluate(a, "digits", originals=b, **settings) == expected
    assert ldbench.evaluate(PIXELS, originals=ORIGINALS, **settings) == expected
    assert expected["mse"].value == pytest.approx(((PIXELS.double() - ORIGINALS) / 255).square().mean().item())


def test_a_folder_is_a_reference_as_data_folder_is_at_the_size_of_the_samples(
    how: dict[str, Any], tmp_path: Path
) -> None:
    real = pngs(
        tmp_path / "real",
        torch.cat([ORIGINALS, ORIGINALS // 2]).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3),
    )
    where = ["data=folder", f"data.root={real}", "data.image_size=32"]
    samples = pngs(tmp_path / "samples", PIXELS)
    expected = by_command(tmp_path / "command", how["searchpath"], f"job.samples={samples}", *where)
    for reference in (real, f"folder:{real}"):
        assert ldbench.evaluate(PIXELS, reference, **how) == expected


def test_an_npz_alone_gives_the_figures_that_need_no_other_images(how: dict[str, Any], tmp_path: Path) -> None:
    adm_npz.write(tmp_path / "real.npz", [ORIGINALS], NUM)
    words = [f"job.samples={pngs(tmp_path / 's', PIXELS)}", "data=digits"]
    words += [f"protocol.reference={tmp_path / 'real.npz'}"]
    expected = by_command(tmp_path / "command", how["searchpath"], *words)
    found = ldbench.evaluate(PIXELS, tmp_path / "real.npz", **how)
    assert found.items() < expected.items()
    assert expected.keys() - found.keys() == {name for name in expected if name.endswith("_of_heldout")}
    assert "gfd_colors" in found


def test_image_data_is_a_reference(how: dict[str, Any]) -> None:
    assert "gfd_colors_of_heldout" in ldbench.evaluate(PIXELS, tiny_images(), **how)


def test_a_record_is_written_where_asked(how: dict[str, Any], tmp_path: Path) -> None:
    metrics = ldbench.evaluate(PIXELS, "digits", labels=Y, by="them", record=tmp_path / "asked", **how)
    (path,) = (tmp_path / "asked").glob("evaluate-*.json")
    record = validation.read_validated(path)
    assert dict(record.metrics) == metrics
    assert record.subject["samples"] == "them"
    assert record.protocol["num_samples"] == NUM
    assert str(tmp_path) not in path.read_text()
    adm_npz.write(tmp_path / "real.npz", [ORIGINALS], NUM)
    ldbench.evaluate(PIXELS, tmp_path / "real.npz", record=tmp_path / "other", **how)
    (path,) = (tmp_path / "other").glob("evaluate-*.json")
    assert validation.read_validated(path).subject["samples"] == "samples"


FLOATS = from_uint8(PIXELS)


@pytest.mark.parametrize(
    ("samples", "arguments", "sentence"),
    [
        (PIXELS, {"reference": None}, "Samples are compared with real images: say reference="),
        (FLOATS, {}, r"samples holds floats, and nothing says .*Say value_range=\(-1, 1\), \(0, 1\)"),
        (FLOATS * 127, {"value_range": (0, 1)}, r"values from -127 to 127, far from value_range=\(0, 1\)"),
        (FLOATS / 0, {"value_range": (0, 1)}, "pixels that are not finite"),
        (FLOATS, {"value_range": (1, 0)}, "value_range must be two ascending numbers"),
        (PIXELS, {"value_range": (0, 255)}, "has 8 bits, from 0 to 255: leave value_range out"),
        (PIXELS.int(), {}, r"must be 8-bit \(uint8\) or floating-point images, got torch.int32"),
        (PIXELS[:, :, :, :3], {}, "either axis of colors. Say which: layout='nchw' or 'nhwc'"),
        (PIXELS[:, :1], {}, r"\(20, 1, 32, 32\): no axis of colors\. Gray images: repeat"),
        (PIXELS, {"layout": "nhwc"}, "has no 3 colors as layout='nhwc' says"),
        (PIXELS, {"layout": "chwn"}, "layout must be 'nchw' or 'nhwc'"),
        (PIXELS[0], {}, r"must be images \(n, 3, h, w\)"),
        (PIXELS, {"labels": Y[:3]}, r"labels must be one whole number from 0 for each of the 20 images, got \(3,\)"),
        (PIXELS, {"labels": Y / 2}, "labels must be one whole number"),
        ([1, 2], {}, "samples must be a path, a tensor or an array, got a list"),
        ("DIR", {"labels": Y}, "labels is for images in memory, and these are paths"),
        ("DIR", {}, "There is nothing at DIR"),
        (PIXELS, {"originals": ORIGINALS[:3]}, "has 17 images that .* lacks"),
        (PIXELS[..., :16, :16], {}, r"have 16 x 16 px, and those of digits 32 x 32 px"),
        (PIXELS[..., :16], {"reference": None, "originals": PIXELS[..., :16]}, "only square images are compared"),
        (PIXELS, {"reference": "digit"}, "no data named 'digit'. Did you mean digits"),
        (PIXELS, {"protocol": "default"}, "protocol default compares no sets of images. Say with which features"),
        (PIXELS, {"batch_sise": 3}, "evaluate has no setting batch_sise. Did you mean batch_size"),
        (PIXELS, {"reference": "x.npz", "protocol": "digits"}, "Give fields: protocol="),
    ],
)
def test_what_could_mean_two_things_or_nothing_is_told(
    samples: Any, arguments: dict[str, Any], sentence: str, how: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=sentence):
        ldbench.evaluate(samples, **{"reference": "digits", **how, **arguments})


def test_a_datasets_name_counts_before_a_folder_of_that_name(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = ldbench.evaluate(PIXELS, "digits", **how)
    (tmp_path / "digits").mkdir()
    assert ldbench.evaluate(PIXELS, "digits", **how) == expected


def test_statistics_alone_do_not_say_the_size_of_images(how: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ValueError, match="holds statistics and no images, so the size of images is not known"):
        ldbench.evaluate(PIXELS, tmp_path / "stats.npz", **how)


def test_the_protocols_rule_makes_the_pixels_of_floats(how: dict[str, Any], tmp_path: Path) -> None:
    between = torch.full((NUM, 3, 32, 32), 0.9 / 255)
    mse = {}
    for rule in ("round", "floor"):
        settings = {**how, "protocol": {"pixel_rule": rule, "reconstruction": ["mse"]}}
        zeros = torch.zeros(NUM, 3, 32, 32)
        mse[rule] = ldbench.evaluate(between, originals=zeros, value_range=(0, 1), **settings)["mse"].value
    assert mse["floor"] == 0
    assert mse["round"] == pytest.approx(255**-2)
