"""Samples in parts: whole or absent, and what leaves them is what was put in."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.data.samples import SampleParts, write_pngs

IMAGES = torch.randint(256, (11, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def parts(tmp_path: Path) -> SampleParts:
    parts = SampleParts(tmp_path / "parts", num_samples=11, part_size=4)
    for indices in parts.ranges():
        parts.write(indices, IMAGES[list(indices)])
    return parts


def test_parts_are_read_in_order_and_cover_all_indices(parts: SampleParts) -> None:
    indices, images = zip(*parts.read(), strict=True)
    assert [index for part in indices for index in part] == list(range(11))
    assert torch.equal(torch.cat(images), IMAGES)


def test_numbers_of_images_are_kept_by_part_and_do_not_make_one(tmp_path: Path) -> None:
    parts = SampleParts(tmp_path / "parts", num_samples=5, part_size=2)
    numbers = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for indices in parts.ranges():
        parts.write_numbers(indices, numbers[list(indices)])
    assert torch.equal(parts.numbers(), numbers)
    assert parts.missing() == parts.ranges(), "images are written last"


def test_what_was_interrupted_lacks_only_what_was_not_finished(parts: SampleParts) -> None:
    # as a kill in the middle of writing leaves it
    parts.path(range(4, 8)).rename(parts.folder / ".000004-000007.npy.99999999.tmp")
    assert parts.missing() == [range(4, 8)]
    parts.write(range(4, 8), IMAGES[4:8])
    assert parts.missing() == []
    assert not list(parts.folder.glob(".*"))


def test_a_part_that_the_disk_refuses_is_reported_and_does_not_exist(tmp_path: Path) -> None:
    parts = SampleParts(tmp_path / "parts", num_samples=11, part_size=11)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (IMAGES.nbytes // 2, before[1]))
    try:
        with pytest.raises(OSError, match=r"000000-000010\.npy"):
            parts.write(range(11), IMAGES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert parts.missing() == [range(11)]
    assert list(parts.folder.iterdir()) == []


def test_the_folder_of_pngs_is_one_of_classes(tmp_path: Path) -> None:
    write_pngs(tmp_path / "samples", IMAGES[:3], first=7, classes=["cat", "dog", "cat"])
    paths = sorted(str(path.relative_to(tmp_path / "samples")) for path in tmp_path.rglob("*.png"))
    assert paths == ["cat/000007.png", "cat/000009.png", "dog/000008.png"]
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "samples" / "dog" / "000008.png")), IMAGES[1].permute(1, 2, 0).numpy()
    )


def test_data_folder_reads_them_again(tmp_path: Path) -> None:
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_pngs(tmp_path / "samples", images, first=0, classes=["cat", "dog"] * 4)
    cfg = Registry().compose("train", ["data=folder", f"data.root={tmp_path / 'samples'}", "data.image_size=32"])
    data = instantiate(cfg.data)
    assert data.class_names == ("cat", "dog")
    assert len(data.train) + len(data.test) == 8
