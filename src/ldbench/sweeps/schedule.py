"""The order in which a sweep's tasks start: each shared tokenizer once, first, then the points that need it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ldbench.sweeps.points import Point

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"


@dataclass(eq=False)
class SweepTask:
    """One process of a sweep and its state: a point, or the artifacts that the points of one tokenizer share."""

    name: str  # of its log
    label: str
    overrides: Sequence[str]
    tokenizer: str | None
    depends_on: "SweepTask | None" = None  # the task that must be done before this one starts
    is_shared: bool = False  # whether it builds what points share
    state: str = WAITING
    reason: str = ""  # why it failed
    seconds: float = 0.0


@dataclass
class Schedule:
    """The tasks of a sweep, in the order of the table, and which of them is next."""

    tasks: list[SweepTask] = field(default_factory=list)

    @classmethod
    def of(cls, points: Sequence[Point], start: int = 0) -> "Schedule":
        """The schedule of some points: tokenizers that several points need come first.

        A point that alone needs its tokenizer builds it itself. `start`: the first point's number.
        """
        groups: dict[str, list[Point]] = {}
        for point in points:
            if point.needs.tokenizer is not None:
                groups.setdefault(point.needs.tokenizer, []).append(point)
        shared: dict[str, SweepTask] = {}
        for key, group in groups.items():
            if len(group) > 1:
                chosen = next((point for point in group if point.needs.latents), group[0])
                name = f"tokenizer-{group[0].needs.tokenizer_name}"
                num_same = sum(task.name.startswith(name) for task in shared.values())
                name = f"{name}-{num_same + 1}" if num_same else name  # two folders may hold tokenizers of one name
                label = f"tokenizer {group[0].needs.tokenizer_name}"
                shared[key] = SweepTask(name, label, chosen.overrides, key, is_shared=True)
        rest = [
            SweepTask(
                str(start + index),
                point.label,
                point.overrides,
                point.needs.tokenizer,
                shared.get(point.needs.tokenizer or ""),
            )
            for index, point in enumerate(points)
        ]
        return cls([*shared.values(), *rest])

    def next(self) -> SweepTask | None:
        """The task to start now, or None: shared tokenizers first, then points whose tokenizer has fewest started."""
        ready = [
            task
            for task in self.tasks
            if task.state == WAITING and (task.depends_on is None or task.depends_on.state == DONE)
        ]
        started = [task for task in self.tasks if task.state != WAITING and not task.is_shared]

        def num_started(task: SweepTask) -> tuple[int, int]:
            same = [other for other in started if other.tokenizer is not None and other.tokenizer == task.tokenizer]
            return sum(other.state == RUNNING for other in same), len(same)

        return min(ready, key=lambda task: (not task.is_shared, *num_started(task)), default=None)

    def end(self, task: SweepTask, reason: str | None) -> list[SweepTask]:
        """Marks a task as done, or as failed for a reason. Returns the tasks that can then never start."""
        task.state, task.reason = (DONE, "") if reason is None else (FAILED, reason)
        lost = [other for other in self.tasks if other.depends_on is task] if reason is not None else []
        for other in lost:
            other.state, other.reason = FAILED, f"its tokenizer failed: {reason}"
        return lost

    def count(self, state: str) -> int:
        """The number of tasks in a state."""
        return sum(task.state == state for task in self.tasks)
