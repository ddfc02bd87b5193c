"""Images beside records: found where a job saved all of them; what is foreign or broken is refused."""

import numpy as np
import pytest
from tests.made_records import make_record, save_reconstructions, save_samples

from ldbench.results import records
from ldbench.results.saved_images import read_image, saved_reconstructions, saved_samples

GRAY = np.full((4, 4, 3), 90, dtype=np.uint8)
NOISE = {"seed": 0, "num_tokens": 4, "channels": 2}


def test_saved_reconstructions_are_named_by_their_files_in_folders_too(tmp_path) -> None:
    record = save_reconstructions(tmp_path, make_record(), {"b": (GRAY, GRAY + 1), "cats/a.b": (GRAY + 2, GRAY)})
    saved = saved_reconstructions(tmp_path, record)
    assert saved.names == ["b", "cats/a.b"]
    assert (saved.original("cats/a.b") == 92).all()
    assert (saved.recon("b") == 91).all()


def test_a_record_without_all_of_its_images_has_none(tmp_path) -> None:
    record = make_record()
    records.write(record, tmp_path)
    assert saved_reconstructions(tmp_path, record) is None
    save_reconstructions(tmp_path, record, {"a": (GRAY, GRAY)})
    folder = tmp_path / f"reconstruct-{record.id}"
    (folder / "images.csv").unlink()
    assert saved_reconstructions(tmp_path, record) is None, "interrupted: the table is written last"
    (folder / "images.csv").touch()
    (folder / "originals").rename(tmp_path / "elsewhere")
    (folder / "originals").symlink_to(tmp_path / "elsewhere")
    assert saved_reconstructions(tmp_path, record) is None, "links are not followed"
    assert saved_samples(tmp_path, record) is None, "a record of another job"


def test_a_sample_is_found_by_its_index_in_the_folder_of_its_class(tmp_path) -> None:
    made = make_record(job="generate", generator="sit")
    saved = saved_samples(tmp_path, save_samples(tmp_path, made, {("cat", 0): GRAY, ("dog", 1): GRAY + 1}, NOISE))
    assert [saved.find(index) for index in range(3)] == ["cat", "dog", None]
    assert (saved.sample(1, "dog") == 91).all()
    assert saved.noise == NOISE
    assert saved_samples(tmp_path, make_record(job="generate", generator="dit")) is None


def test_the_noise_of_an_older_record_is_unknown_and_a_foreign_file_is_refused(tmp_path) -> None:
    made = make_record(job="generate", generator="sit")
    save_samples(tmp_path, made, {("cat", 0): GRAY}, None)
    assert saved_samples(tmp_path, made).noise is None
    (tmp_path / f"generate-{made.id}" / "noise.json").write_text('{"seed": 0}')
    with pytest.raises(ValueError, match="must hold channels, num_tokens, seed"):
        _ = saved_samples(tmp_path, made).noise


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\0" * 40])
def test_a_file_that_is_no_image_is_refused_by_name(tmp_path, content) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image .* force=true"):
        read_image(tmp_path / "a.png")


def test_a_missing_image_and_a_link_are_refused(tmp_path) -> None:
    (tmp_path / "link.png").symlink_to("/dev/zero")
    for name in ("link.png", "missing.png"):
        with pytest.raises(ValueError, match="it is not a file"):
            read_image(tmp_path / name)
