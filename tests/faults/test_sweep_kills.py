"""A sweep is killed at random points, whole, its launcher or one process: restarted, it ends as one that never was.

What a killed launcher leaves running ends by itself soon after; until then it holds its locks, so that the next start
builds nothing twice at once.
"""

import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from tests.faults import outcome
from tests.faults.chains import KILLS, MOST, Tally
from tests.faults.processes import PATIENCE, Forked, run
from tests.faults.stages import Made
from tests.faults.sweeping import children_of, is_there, sweep

GRID = ["tokenizer.seed=0,1", "generator=sit,lightningdit", "hydra.launcher.jobs=2"]
CELLS = [
    "generator.max_steps=12",
    "generator.batch_size=8",
    "generator.optimizer.warmup_steps=2",
    "generator.backbone.width=24",
    "generator.backbone.depth=1",
    "generator.backbone.num_heads=2",
    "sampler.num_steps=2",
    "callbacks.samples.num_images=4",
    "protocol.num_samples=20",
]
LONGEST = 6  # kills in a row
TARGETS = ("all of it", "all of it", "its launcher", "one of its processes")
BUILT = re.compile(r"^Trained in \d+ s\. (?:Tokenizer|Generator): .*/(.*)$", re.MULTILINE)


@dataclass
class Sweep:
    """A sweep of two tokenizers and two generators under a root."""

    folder: Path
    small: list[str]
    begun: float = 0.0  # seconds until its first process was started
    seconds: float = 0.0  # until its end
    outcome: dict[str, object] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def log(self) -> Path:
        return self.folder / "launcher.log"

    def work(self) -> Callable[[], object]:
        return sweep(["-m", *self.small, *CELLS, *GRID, f"paths.root={self.root}"], self.folder)

    def built(self) -> Counter[str]:
        """How often each artifact was built, by all starts."""
        return Counter(name for log in self.root.glob("runs/sweeps/*/*.log") for name in BUILT.findall(log.read_text()))


@pytest.fixture(scope="module")
def unbroken(made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory, small_overrides: list[str]) -> Sweep:
    """The sweep, once it has ended as nothing broke it off."""
    found = Sweep(tmp_path_factory.mktemp("sweep"), small_overrides)
    began, clock = time.monotonic(), time.time()
    assert run(found.work(), found.root, found.log) == 0, found.log.read_text()
    found.seconds, found.outcome = time.monotonic() - began, outcome.of(found.root)
    assert sorted(found.built().values()) == [1] * 6
    found.begun = min(folder.stat().st_mtime for folder in found.root.glob("runs/vmae-*/log")) - clock
    return found


@pytest.mark.curves  # the unbroken sweep, made in a fixture, draws them too
def test_a_killed_sweep_ends_as_one_that_never_was(
    unbroken: Sweep, record_property: Callable[[str, object], None]
) -> None:
    row = Tally("sweep", seed="sweep 0")
    faults = list(chains(unbroken, row, random.Random(row.seed)))
    record_property("tally", asdict(row))
    assert faults == []
    assert row.within == KILLS


def chains(unbroken: Sweep, row: Tally, rng: random.Random) -> Iterator[str]:
    """Kills sweeps until they were met at work often enough.

    What is not as it should be at the end of a chain is yielded, with the kills.
    """
    while row.within < KILLS and row.runs < MOST:
        shutil.rmtree(unbroken.root)
        unbroken.log.unlink()
        story: list[str] = []
        orphans: list[int] = []
        while row.within < KILLS and len(story) < LONGEST:
            after, target = rng.uniform(unbroken.begun, unbroken.seconds), rng.choice(TARGETS)
            forked = Forked(unbroken.work(), unbroken.root, unbroken.log)
            forked.process.join(after)
            row.runs += 1
            if not forked.is_alive():
                forked.join()
                break
            story.append(f"{target} after {after:.3f} s")
            met = killed(forked, target, rng)
            orphans += met
            row.hits += 1
            row.within += bool(met)
        if story:
            row.chains += 1
            faults = list(faults_at_the_end(unbroken, orphans))
            row.equal += not faults
            yield from (f"{story}: {fault}" for fault in faults)


def killed(forked: Forked, target: str, rng: random.Random) -> list[int]:
    """Kills a sweep, or a part of it; the processes that were at work for it.

    Where the launcher is left it comes to its end.
    """
    os.kill(forked.pid, signal.SIGSTOP)  # so that it starts no other meanwhile
    at_work = children_of(forked.pid)
    doomed = {
        "all of it": [forked.pid, *at_work],
        "its launcher": [forked.pid],
        "one of its processes": at_work and [rng.choice(at_work)],
    }[target]
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    os.kill(forked.pid, signal.SIGCONT)
    forked.join()
    return at_work


def faults_at_the_end(unbroken: Sweep, orphans: list[int]) -> Iterator[str]:
    """What is not as it should be, once the sweep has come to its end."""
    if status := run(unbroken.work(), unbroken.root, unbroken.log):
        yield f"exit status {status}: {unbroken.log.read_text()}"
        return
    if differing := outcome.differing(unbroken.outcome, outcome.of(unbroken.root)):
        yield f"others than unbroken: {differing}"
    if twice := [name for name, count in unbroken.built().items() if count > 1]:
        yield f"built twice: {twice}"
    deadline = time.monotonic() + PATIENCE
    while any(map(is_there, orphans)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left := [pid for pid in orphans if is_there(pid)]:
        yield f"outlived their sweep: {left}"
    if held := outcome.held_locks(unbroken.root):
        yield f"held still: {held}"
