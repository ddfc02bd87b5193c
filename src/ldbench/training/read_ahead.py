"""Reading ahead: the next batches of a known order are read by threads while one is trained on."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch.utils.data import Dataset, Sampler


class ReadAhead(Dataset):
    """Items of which `batches` batches are read before they are asked for, each by a thread of its own.

    They are asked for in the order of `order`; the batches are those without reading ahead, whatever is ready first. An
    error of a thread is raised where its batch is asked for.
    """

    def __init__(self, items: Any, *, batches: int):
        self.items = items
        self.batches = batches
        self._pool = ThreadPoolExecutor(batches, thread_name_prefix="batches")
        self._waiting: deque[tuple[list[int], Future[Any]]] = deque()

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, batch: list[int]) -> Any:
        expected, read = self._waiting.popleft()
        assert expected == batch, "batches are asked for in the order in which they were announced"
        return read.result()

    def announce(self, batch: list[int]) -> None:
        """Begins to read a batch."""
        self._waiting.append((batch, self._pool.submit(self.items.__getitems__, batch)))

    def order(self, batches: Iterable[list[int]]) -> "Announced":
        """The batches in their order, each announced before it is asked for."""
        return Announced(batches, self)

    def close(self) -> None:
        """Gives up what has not been read."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._waiting.clear()


class Announced(Sampler[list[int]]):
    """Batches of indices, announced some time before."""

    def __init__(self, batches: Any, reader: ReadAhead):
        self.stream = batches
        self.reader = reader

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[list[int]]:
        coming: deque[list[int]] = deque()
        for batch in self.stream:
            self.reader.announce(batch)
            coming.append(batch)
            if len(coming) > self.reader.batches:
                yield coming.popleft()
        yield from coming
