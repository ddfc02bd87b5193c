"""The comparison of reading speeds: every reader, stage and decoder has its row, and decoders' differences are seen."""

import io
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from tests.data_speed import BASELINE, OTHERS, draw_images, main
from tests.decoder_speed import describe_difference, pillow

TINY = ("--size", "16", "--rounds", "1", "--batch-size", "4")


def test_every_reader_stage_and_decoder_has_its_row(capsys):
    main([*("--images", "9", "--width", "64"), *("--workers", "0", "1"), *TINY])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line]
    cells = {name: rest for name, *rest in rows if name != "---"}
    assert cells["images/s, 9 images"] == ["CPU ms an image", "0 workers", "1 workers"]
    for name in ("data=folder", "data=shards", "data=hf", BASELINE):
        assert len(cells[name]) == 3
        assert all(float(cell.split()[0]) > 0 for cell in cells[name])
    assert all(cell.endswith("(1.00x, 1.00 to 1.00)") for cell in cells[BASELINE])
    for package, name in OTHERS.items():
        assert (cells[name] == ["not installed"] * 3) == (find_spec(package) is None)
    assert {"read the file", "decode (Pillow)", "center crop", "tensor in [-1, 1]"} <= {*cells}
    assert cells["Pillow"][2:] == ["equal"] * 4
    assert {"torchvision.io", "simplejpeg"} <= {*cells}


def test_a_folder_that_is_given_is_measured_instead_of_drawn_images(tmp_path, capsys):
    root = draw_images(tmp_path / "mine", num_images=11, width=32)
    main(["--root", str(root), "--workers", "0", *TINY])
    assert "images/s, 11 images" in capsys.readouterr().out


def test_a_folder_with_other_files_is_refused_before_anything_is_written(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path)])
    assert "a.png, which is no JPEG file. Give JPEG files only." in capsys.readouterr().err


def test_drawn_images_are_the_same_at_each_call(tmp_path):
    first, second = (draw_images(tmp_path / name, num_images=8, width=32) for name in ("a", "b"))
    files = [{path.relative_to(root): path.read_bytes() for path in root.rglob("*.jpg")} for root in (first, second)]
    assert files[0] == files[1]
    assert len(files[0]) == 16


def test_the_difference_of_a_decoder_is_its_largest_level_and_its_share_of_pixels():
    file = io.BytesIO()
    Image.new("RGB", (10, 10), (100, 100, 100)).save(file, format="JPEG")

    def one_pixel_off(content: bytes) -> Image.Image:
        pixels = np.array(pillow(content))
        pixels[3, 4, 1] += 3
        return Image.fromarray(pixels)

    assert describe_difference(one_pixel_off, [file.getvalue()]) == "3 levels, 1.00%"
    assert describe_difference(pillow, [file.getvalue()]) == "equal"
