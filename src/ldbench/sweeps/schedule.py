"""What a sweep starts when: each tokenizer once, first, and then the points that need it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ldbench.sweeps.points import Point

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"


@dataclass(eq=False)
class SweepTask:
    """One process of a sweep: a point, or what points of one tokenizer share, with what became of it."""

    name: str  # of its log
    label: str
    overrides: Sequence[str]
    tokenizer: str | None
    after: "SweepTask | None" = None  # what must be done before; None for what begins at once
    is_first: bool = False  # whether it makes what points share
    state: str = WAITING
    reason: str = ""  # why it failed
    seconds: float = 0.0


@dataclass
class Schedule:
    """The steps of a sweep, in the order of the table, and which of them is next."""

    steps: list[SweepTask] = field(default_factory=list)

    @classmethod
    def of(cls, points: Sequence[Point], start: int = 0) -> "Schedule":
        """Tokenizers that several points need come first; a point that has its own for itself builds it. `start`: the first point's number."""
        groups: dict[str, list[Point]] = {}
        for point in points:
            if point.needs.tokenizer is not None:
                groups.setdefault(point.needs.tokenizer, []).append(point)
        firsts = {}
        for key, group in groups.items():
            if len(group) > 1:
                chosen = next((point for point in group if point.needs.latents), group[0])
                name = f"tokenizer-{group[0].needs.tokenizer_name}"
                taken = sum(first.name.startswith(name) for first in firsts.values())
                name = f"{name}-{taken + 1}" if taken else name  # two places may hold tokenizers of one name
                firsts[key] = SweepTask(
                    name, f"tokenizer {group[0].needs.tokenizer_name}", chosen.overrides, key, is_first=True
                )
        rest = [
            SweepTask(
                str(start + place),
                point.label,
                point.overrides,
                point.needs.tokenizer,
                firsts.get(point.needs.tokenizer or ""),
            )
            for place, point in enumerate(points)
        ]
        return cls([*firsts.values(), *rest])

    def next(self) -> SweepTask | None:
        """The step to start now, if one can: tokenizers first, then points of the tokenizer that has fewest of them under way or done."""
        ready = [
            step for step in self.steps if step.state == WAITING and (step.after is None or step.after.state == DONE)
        ]
        begun = [step for step in self.steps if step.state != WAITING and not step.is_first]

        def company(step: SweepTask) -> tuple[int, int]:
            beside = [other for other in begun if other.tokenizer is not None and other.tokenizer == step.tokenizer]
            return sum(other.state == RUNNING for other in beside), len(beside)

        return min(ready, key=lambda step: (not step.is_first, *company(step)), default=None)

    def end(self, step: SweepTask, reason: str | None) -> list[SweepTask]:
        """Notes that a step is done, or failed for a reason. Returns the steps that can never begin for that."""
        step.state, step.reason = (DONE, "") if reason is None else (FAILED, reason)
        lost = [other for other in self.steps if other.after is step] if reason is not None else []
        for other in lost:
            other.state, other.reason = FAILED, f"its tokenizer failed: {reason}"
        return lost

    def count(self, state: str) -> int:
        """How many steps are in a state."""
        return sum(step.state == state for step in self.steps)
