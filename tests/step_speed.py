"""How long a training step of generators takes, side by side in one run, also against another checkout:

    python -m tests.step_speed                                       # the families of the digits against SiT
    python -m tests.step_speed generator=sit generator=meanflow      # any overrides, one case a word
    python -m tests.step_speed --against OTHER_CHECKOUT              # each case against the same of other code

A case is `python -m ldbench.run job=throughput` in a process of its own, on raw pixels of the digits and one thread,
with the overrides of its word (several are parted by blanks). Cases take turns in each round, every other round
backwards. A cell is the median of the rounds, and in parentheses the median, the lowest and the highest ratio within a
round.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.data_speed import ratio, table

REPA = "+generator_loss@generator.losses.repa=repa"
CASES = (
    "generator=sit",
    "generator=dit",
    "generator=lightningdit",
    "generator=lightningdit objective=flow_matching_maetok",
    "generator=ditdh",
    "generator=meanflow",
    f"generator=sit {REPA}",
)
HERE = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="How long a training step of generators takes, side by side.")
    parser.add_argument("cases", nargs="*", default=list(CASES), help="overrides of a case; the first is the measure")
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="timed steps of a round")
    given = parser.parse_args(arguments)
    if given.against is not None and not (given.against / "src" / "ldbench").is_dir():
        parser.error(f"--against={given.against} holds no src/ldbench. Give the folder of a checkout.")
    checkouts = [HERE, *([given.against.resolve()] if given.against is not None else [])]
    cases = [(case, checkout) for case in given.cases for checkout in checkouts]
    seconds: dict[tuple[str, Path], list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(given.rounds):
            for case in cases if number % 2 == 0 else reversed(cases):
                seconds[case].append(time_steps(*case, root=Path(scratch) / str(cases.index(case)), steps=given.steps))
    first = seconds[cases[0]]
    rows = []
    for case in given.cases:
        ours = seconds[case, HERE]
        cells = [f"{1000 * median(ours):.1f} ({ratio(ours, first)})"]
        if given.against is not None:
            theirs = seconds[case, checkouts[1]]
            cells.append(f"{1000 * median(theirs):.1f} ({ratio(ours, theirs)})")
        rows.append([f"`{case}`", *cells])
    print(table(["case", "ms a step", *(["there, and ours by theirs"] if given.against is not None else [])], rows))


def time_steps(case: str, checkout: Path, *, root: Path, steps: int) -> float:
    """Seconds of a training step, as the code of a checkout measures it."""
    overrides = ["tokenizer=identity", *case.split(), "trainer.limit_steps=0", f"paths.root={root}"]
    job = ["job=throughput", "job.images=1", "job.repeats=1", f"job.steps={steps}", "sampler.num_steps=1"]
    records = root / "records"
    for old in records.glob("throughput-*.json"):
        old.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "ldbench.run", *overrides, *job],
        env={**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"`{case}` failed in {checkout}: {(done.stderr or done.stdout)[-2000:]}")
    (record,) = records.glob("throughput-*.json")
    return float(json.loads(record.read_text(encoding="utf-8"))["metrics"]["step_seconds/generator"]["value"])


if __name__ == "__main__":
    main()
