"""What went wrong in another process, in a sentence."""

import os
import signal
from pathlib import Path

import pytest
import torch
from tests.forking import Forked
from torch.utils.data import DataLoader, Dataset

from ldbench.config.error_messages import error_message, worker_failure


class Broken(Dataset):
    """Its third item cannot be read, or ends the process that reads it."""

    def __init__(self, kills: bool):
        self.kills = kills

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 2 and self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 2:
            raise ValueError("Cannot read cat/2.png as an image: It is truncated. Repair or remove the file.")
        return torch.zeros(1)


def read_all(kills: bool) -> Exception:
    with pytest.raises((ValueError, RuntimeError, OSError, EOFError)) as caught:
        list(DataLoader(Broken(kills), num_workers=1))
    return caught.value


def test_what_a_worker_could_not_read_is_said_as_without_workers() -> None:
    assert error_message(read_all(kills=False)) == (
        "Cannot read cat/2.png as an image: It is truncated. Repair or remove the file."
    )


def show_a_killed_worker() -> None:
    print(error_message(read_all(kills=True)))


def test_a_killed_worker_is_said_with_what_to_do(tmp_path: Path) -> None:
    # in a process of its own: torch's handler of the signal may raise a second time, wherever the process is by then
    forked = Forked(show_a_killed_worker, tmp_path / "log", dict(os.environ))
    forked.wait()
    assert "A data loading worker ended (" in forked.output()
    assert "It may have been out of memory. Set fewer workers, or trainer.workers=0." in forked.output()


def test_a_full_shared_memory_and_a_long_path_are_named() -> None:
    text = (
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit."
    )
    assert "--shm-size=8g" in str(worker_failure(RuntimeError(text)))
    assert "Set TMPDIR to a shorter one" in str(worker_failure(OSError("AF_UNIX path too long")))
    assert worker_failure(RuntimeError("shape mismatch")) is None
