"""Chains of kills: a stage is killed repeatedly, then completed, and must equal one that was never killed."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults import outcome
from tests.faults.processes import AtFile, AtTime, Kill, run
from tests.faults.stages import Made

KILLS = 20  # of each stage, within the stage
LONGEST = 4  # kills in a row, before it may come to its end
MOST = 8 * KILLS  # starts: then something is wrong with the draws


@dataclass
class Tally:
    """What became of a stage's kills: a row of the table."""

    stage: str
    seed: str
    runs: int = 0  # starts that were to be killed
    hits: int = 0  # of them those that were
    within: int = 0  # of these those that met the stage at work
    in_a_file: int = 0  # and those as a file was being touched
    chains: int = 0  # ends, each after some kills
    equal: int = 0  # of them those that are the unbroken one's


def drawn(made: Made, rng: random.Random) -> Kill:
    """At any time of the stage, or at a file that it touches: each kind of file is as likely as any other, at once or
    up to 3 ms later.
    """
    if rng.random() < 0.5:
        return AtTime(rng.uniform(0.0, made.seconds))
    touch = rng.choice(sorted(made.touches))
    return AtFile(touch, rng.randint(1, made.touches[touch]), rng.choice([0.0, rng.uniform(0.0, 0.003)]))


def chains(made: Made, tally: Tally, rng: random.Random) -> Iterator[str]:
    """Kills a stage until it was met at work often enough.

    What is not as it should be at the end of a chain is yielded, with the kills.
    """
    while tally.within < KILLS and tally.runs < MOST:
        words = made.stage.variants[tally.chains % len(made.stage.variants)]
        root, log, story = made.lay_out(), made.folder / "broken.log", []
        shutil.rmtree(log.parent / "tmp", ignore_errors=True)
        log.unlink(missing_ok=True)
        work = made.work(words)
        while tally.within < KILLS and len(story) < LONGEST:
            kill = drawn(made, rng)
            status = run(work, root, log, kill=kill)
            tally.runs += 1
            if status == 0:
                break
            if status != -9:
                yield f"{story}: {log.read_text()}"
                break
            at_work = made.is_under_way()
            story.append(kill)
            tally.hits += 1
            tally.within += at_work
            tally.in_a_file += at_work and isinstance(kill, AtFile)
        if not story:
            continue
        tally.chains += 1
        print(f"{tally}", flush=True)
        faults = list(faults_at_the_end(made, work))
        tally.equal += not faults
        yield from (f"{story}: {fault}" for fault in faults)


def faults_at_the_end(made: Made, work: Callable[[], object]) -> Iterator[str]:
    """What is not as it should be, once the stage has come to its end."""
    log = made.folder / "broken.log"
    status = run(work, made.root, log)
    if status:
        yield f"exit status {status}: {log.read_text()}"
        return
    differing = outcome.differing(made.outcome, outcome.of(made.root))
    if differing:
        yield f"others than unbroken: {differing}"
    if held := outcome.held_locks(made.root):
        yield f"held still: {held}"
    if left := [path.name for path in (log.parent / "tmp").iterdir()]:
        yield f"left in the folder for temporary files: {left}"
