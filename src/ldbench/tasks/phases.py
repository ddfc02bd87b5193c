"""Phases: what a training step is made of, under the names that profiles and clocks show."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch.autograd.profiler import record_function


class Clock:
    """The seconds of each phase while it is `running`. What a phase inside another takes is its own alone; an accelerator is waited for."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []  # of each phase that is under way: what phases inside it took

    @contextmanager
    def running(self) -> Iterator["Clock"]:
        """Times the phases of what is done meanwhile."""
        token = _CLOCK.set(self)
        try:
            yield self
        finally:
            _CLOCK.reset(token)

    def now(self) -> float:
        """Seconds, after all work that was handed to the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Adds the time of what is done meanwhile."""
        started = self.now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            taken = self.now() - started
            self.seconds[name] += taken - self._inner.pop()
            if self._inner:
                self._inner[-1] += taken


_CLOCK: ContextVar[Clock | None] = ContextVar("clock", default=None)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """A part of a step under its name: in a profile always, and on the clock where one is running."""
    clock = _CLOCK.get()
    with record_function(name):
        if clock is None:
            yield
        else:
            with clock.timing(name):
                yield
