"""Phases: what a training step is made of, under the names that profiles and clocks show."""

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
    """A phase that was, and the phases right inside it."""

    name: str
    began: Mark
    inside: list["Span"] = field(default_factory=list)
    ended: Mark | None = None


class Clock:
    """The seconds of each phase while it is `running`. What a phase inside another takes is its own alone.

    On CUDA moments are marks in the stream of the device's work, which is not held up: what is read is when the device came to them.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._spans: list[Span] = []
        self._open: list[Span] = []  # the innermost last

    @contextmanager
    def running(self) -> Iterator["Clock"]:
        """Times the phases of what is done meanwhile."""
        token = _CLOCK.set(self)
        try:
            yield self
        finally:
            _CLOCK.reset(token)

    def now(self) -> Mark:
        """This moment."""
        if self.device.type == "cuda":
            return torch.cuda.current_stream(self.device).record_event(torch.cuda.Event(enable_timing=True))
        return time.perf_counter()

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Adds the time of what is done meanwhile."""
        span = Span(name, self.now())
        (self._open[-1].inside if self._open else self._spans).append(span)
        self._open.append(span)
        try:
            yield
        finally:
            self._open.pop().ended = self.now()

    def seconds(self) -> dict[str, float]:
        """What every phase took, in the order of their beginnings; waits for the device to have ended them."""
        told: dict[str, float] = defaultdict(float)
        waiting = list(reversed(self._spans))
        while waiting:
            span = waiting.pop()
            told[span.name] += between(span.began, span.ended) - sum(
                between(inner.began, inner.ended) for inner in span.inside
            )
            waiting += reversed(span.inside)
        return dict(told)


def between(began: Mark, ended: Mark | None) -> float:
    """Seconds from one moment to another; waits for the device to reach the later one."""
    if isinstance(began, torch.cuda.Event):
        ended.synchronize()
        return began.elapsed_time(ended) / 1000
    return ended - began


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
