"""How fast the leaderboard of 200 models and 10 000 records is made, painted and searched, in a real Chromium.

python -m tests.page_speed
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ldbench.pipeline.stored_records import read_records
from ldbench.results import html, records
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.per_image import read_values
from tests.browser.conftest import NAMES, Browser
from tests.many_records import many_records

PAINTED = """performance.getEntriesByType('paint').filter((entry) => entry.name === 'first-contentful-paint')
  .map((entry) => entry.startTime)[0]"""
TYPED = """(async (text) => {
  const field = document.querySelector('#filter');
  const start = performance.now();
  field.value = text;
  field.dispatchEvent(new Event('input'));
  const ran = performance.now() - start;
  document.body.getBoundingClientRect();
  return [ran, performance.now() - start];
})"""
SEARCHED = ("t", "to", "tokenizer_04", "tokenizer_04 sit", "")
OPENED = 5  # times that the page is opened


def main() -> None:
    """Prints the times, and the number of processors that they are of."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for record in many_records():
            records.write(record, folder / "records")
        found = timed("records read and validated", partial(read_records, folder / "records"))
        boards = timed("ranked", partial(build_leaderboards, found, partial(read_values, folder / "records")))
        text = timed("page made", partial(html.render, boards, [], [], {}, "now"))
        path = folder / "leaderboard.html"
        path.write_text(text, encoding="utf-8")
        say("records", len(found))
        say("models", len({row.model for board in boards for row in board.rows}))
        say("page, MB", path.stat().st_size / 1e6)
        look(path, folder / "profile")


def look(page: Path, profile: Path) -> None:
    """Prints what the browser needs."""
    program = next(filter(None, map(shutil.which, NAMES)))
    browser = Browser(program, profile)
    painted, drawn, typed = [], [], []
    for _ in range(OPENED):
        browser.renew()
        browser.view(width=1280)
        browser.open(page)
        drawn.append(browser.run("performance.now()"))  # which waits for all of it
        painted.append(browser.run(PAINTED))
        typed += [browser.run(f"{TYPED}({json.dumps(text)})")[1] for text in SEARCHED]
    say("first contentful paint, ms: median, largest", statistics.median(painted), max(painted))
    say("all drawn, ms: median, largest", statistics.median(drawn), max(drawn))
    say("a keystroke in the search, with layout, ms: median, largest", statistics.median(typed), max(typed))
    say("rows in the document", browser.run("document.querySelectorAll('tbody tr').length"))
    browser.close()


def timed(name: str, act: Callable[[], Any]) -> Any:
    """The result of a function, whose seconds are printed."""
    start = time.perf_counter()
    result = act()
    say(f"{name}, s", time.perf_counter() - start)
    return result


def say(name: str, *numbers: float) -> None:
    """Prints a line."""
    sys.stdout.write(f"{name:60} {'  '.join(f'{number:.4g}' for number in numbers)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
