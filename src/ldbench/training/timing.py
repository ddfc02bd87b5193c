"""Phases of a training step, under the names that profiles and clocks show."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch.autograd.profiler import record_function

Mark = float | torch.cuda.Event  # a moment


@dataclass
class Span:
    """A phase, and the phases directly inside it."""

    name: str
    started: Mark
    inside: list["Span"] = field(default_factory=list)
    ended: Mark | None = None


class Clock:
    """The seconds of each phase while it is `running`, without those of the phases inside it.

    On CUDA it records events in the current stream, which does not synchronize the device.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._spans: list[Span] = []
        self._open: list[Span] = []  # the innermost last

    @contextmanager
    def running(self) -> Iterator["Clock"]:
        """Within it, phases are timed by this clock."""
        token = _CLOCK.set(self)
        try:
            yield self
        finally:
            _CLOCK.reset(token)

    def now(self) -> Mark:
        """The current moment: an event on CUDA, else seconds."""
        if self.device.type == "cuda":
            return torch.cuda.current_stream(self.device).record_event(torch.cuda.Event(enable_timing=True))
        return time.perf_counter()

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Within it, time counts as this phase's."""
        span = Span(name, self.now())
        (self._open[-1].inside if self._open else self._spans).append(span)
        self._open.append(span)
        try:
            yield
        finally:
            self._open.pop().ended = self.now()

    def seconds(self) -> dict[str, float]:
        """The seconds of every phase, in the order of their starts; synchronizes with the device."""
        seconds: dict[str, float] = defaultdict(float)
        pending = list(reversed(self._spans))
        while pending:
            span = pending.pop()
            seconds[span.name] += between(span.started, span.ended) - sum(
                between(inner.started, inner.ended) for inner in span.inside
            )
            pending += reversed(span.inside)
        return dict(seconds)


def between(started: Mark, ended: Mark | None) -> float:
    """Seconds from one moment to another; waits for the device to reach the later one."""
    if isinstance(started, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
        ended.synchronize()
        return float(started.elapsed_time(ended)) / 1000
    assert isinstance(started, float)
    assert isinstance(ended, float), "the phase has ended"
    return ended - started


_CLOCK: ContextVar[Clock | None] = ContextVar("clock", default=None)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Within it, a part of a step has a name, in profiles and on the running clock."""
    clock = _CLOCK.get()
    with record_function(name):
        if clock is None:
            yield
        else:
            with clock.timing(name):
                yield
