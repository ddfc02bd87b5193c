"""Batches that are read ahead come in their order, and so do errors."""

import threading
import time

import pytest
from torch.utils.data import DataLoader

from ldbench.training.read_ahead import ReadAhead

BATCHES = [[number, number + 1] for number in range(12)]


class Slow:
    """Items of which later ones are read faster; counts how many batches are being read or were read."""

    def __init__(self, fatal: int | None = None):
        self.fatal = fatal
        self.asked: list[list[int]] = []
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return 13

    def __getitems__(self, batch: list[int]) -> list[int]:
        with self.lock:
            self.asked.append(batch)
        time.sleep(0.02 if batch[0] % 2 else 0.001)
        if batch[0] == self.fatal:
            raise OSError("gone")
        return [-item for item in batch]


def loader(reader: ReadAhead) -> DataLoader:
    return DataLoader(reader, batch_sampler=reader.order(BATCHES), collate_fn=lambda batch: batch)


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_batches_come_in_their_order(ahead: int) -> None:
    reader = ReadAhead(Slow(), batches=ahead)
    assert list(loader(reader)) == [[-item for item in batch] for batch in BATCHES]
    assert len(loader(reader)) == len(BATCHES)
    reader.close()


def test_no_more_than_that_many_are_read_before_they_are_needed() -> None:
    items = Slow()
    reader = ReadAhead(items, batches=3)
    batches = iter(loader(reader))
    next(batches)
    time.sleep(0.2)
    assert sorted(items.asked) == BATCHES[:4]
    reader.close()


def test_an_error_is_raised_where_its_batch_is_needed() -> None:
    reader = ReadAhead(Slow(fatal=2), batches=4)
    batches = iter(loader(reader))
    assert [next(batches), next(batches)] == [[0, -1], [-1, -2]]
    with pytest.raises(OSError, match="gone"):
        next(batches)
    reader.close()


def test_what_is_not_needed_any_more_is_given_up() -> None:
    items = Slow()
    reader = ReadAhead(items, batches=1)
    for batch in BATCHES:
        reader.announce(batch)
    reader.close()
    time.sleep(0.2)
    assert len(items.asked) < 4
