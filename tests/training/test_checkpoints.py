"""The checkpoint from which a run resumes, wherever it was interrupted."""

import errno
import io
import logging
import tempfile
from pathlib import Path

import pytest
import torch

from ldbench.training import checkpoints


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = checkpoints.newest(tmp_path, "pretrain")
    path.parent.mkdir()
    return path


def write(path: Path, step: int) -> None:
    torch.save({"step": step, **dict.fromkeys(checkpoints.REQUIRED_KEYS, 0)}, checkpoints.scratch(path))
    checkpoints.rotate(checkpoints.scratch(path), path)


def step_of(path: Path | None) -> int:
    assert path is not None
    return torch.load(path, weights_only=True)["step"]


def test_without_a_checkpoint_a_run_begins_at_the_beginning(path: Path) -> None:
    assert checkpoints.newest_readable(path) is None


def test_the_newest_is_taken_and_the_one_before_is_kept(path: Path) -> None:
    for step in (1, 2, 3):
        write(path, step)
    assert step_of(checkpoints.newest_readable(path)) == 3
    assert step_of(checkpoints.previous(path)) == 2
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_one_cut_short_is_passed_over_and_that_is_said(
    path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, 1)
    write(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with caplog.at_level(logging.WARNING):
        assert step_of(checkpoints.newest_readable(path)) == 1
    assert f"{path} cannot be read" in caplog.text
    assert "Using the one before it" in caplog.text


def test_between_the_two_moves_of_a_rotation_one_stands(path: Path) -> None:
    write(path, 1)
    path.replace(checkpoints.previous(path))  # broken off here
    assert step_of(checkpoints.newest_readable(path)) == 1


def test_a_half_written_scratch_file_is_never_taken(path: Path) -> None:
    write(path, 1)
    checkpoints.scratch(path).write_bytes(b"half")
    assert step_of(checkpoints.newest_readable(path)) == 1


def test_a_checkpoint_that_wants_to_run_code_is_not_read(path: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"step": Evil()}, path)
    assert checkpoints.newest_readable(path) is None
    assert not (tmp_path / "ran").exists()


def test_when_none_can_be_read_the_stage_begins_anew_and_that_is_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, 1)
    write(path, 2)
    for candidate in (path, checkpoints.previous(path)):
        candidate.write_bytes(candidate.read_bytes()[:-1])
    assert checkpoints.newest_readable(path) is None
    assert caplog.messages[-1] == "No checkpoint of stage pretrain can be read: it restarts from its beginning."
    assert sum("Using the one before it" in message for message in caplog.messages) == 1


def test_broken_off_in_a_rotation_over_one_that_was_cut_short_the_written_one_is_taken(path: Path) -> None:
    write(path, 1)
    write(path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    torch.save({"step": 3, **dict.fromkeys(checkpoints.REQUIRED_KEYS, 0)}, checkpoints.scratch(path))
    path.replace(checkpoints.previous(path))  # broken off here
    assert step_of(checkpoints.newest_readable(path)) == 3


def test_a_checkpoint_goes_where_it_belongs_by_no_way_through_the_folder_for_temporary_files(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(path.parent / "none"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    checkpoints.DirectCheckpointIO().save_checkpoint({"step": 1, **dict.fromkeys(checkpoints.REQUIRED_KEYS, 0)}, path)
    assert step_of(checkpoints.newest_readable(path)) == 1


class Full(io.RawIOBase):
    """A file on a full disk."""

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_checkpoint_that_the_disk_does_not_take_is_told_and_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = lambda file, mode: (file.touch(), Full())[1]  # noqa: E731
    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        checkpoints.DirectCheckpointIO().save_checkpoint({"weights": torch.zeros(9)}, path)
    assert not path.exists()
