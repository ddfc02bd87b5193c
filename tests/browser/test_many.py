"""The page of many models: few rows are in the document, and search, order, scrolling and records reach all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser.conftest import Browser
from tests.many_records import GENERATORS, many_records

from ldbench.results import html
from ldbench.results.leaderboards import Leaderboard, build_leaderboards

pytestmark = pytest.mark.browser

ROWS = "[...document.querySelectorAll('[data-table=cells] tbody [aria-rowindex]')]"
NAMES = f"{ROWS}.map((row) => row.querySelector('th').textContent)"
INDICES = f"{ROWS}.map((row) => Number(row.getAttribute('aria-rowindex')))"
SCROLLER = "document.querySelector('[data-table=cells] .scroll')"
HEADER = "[...document.querySelectorAll('[data-table=cells] thead button')].find((b) => b.textContent.startsWith('{}'))"
WIDTHS = "[...document.querySelectorAll('[data-table=cells] thead tr:last-child th')].map((th) => th.offsetWidth)"
CELLS = 150


def scrolled(pixels: float) -> str:
    """What scrolls the table and waits for the rows there."""
    return f"({SCROLLER}.scrollTop = {pixels}, new Promise((done) => setTimeout(done, 100)))"


@pytest.fixture(
    scope="module",
    params=[pytest.param((1, 1), id="400 records"), pytest.param((10, 5), id="10 000 records", marks=pytest.mark.slow)],
)
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Leaderboard], Path]:
    """The leaderboards of 200 models, and their page."""
    num_seeds, num_samplings = request.param
    boards = build_leaderboards(list(many_records(num_seeds=num_seeds, num_samplings=num_samplings)))
    path = tmp_path_factory.mktemp("many") / "leaderboard.html"
    path.write_text(html.render(boards, [], [], {}, "now"), encoding="utf-8")
    return boards, path


@pytest.fixture
def shown(browser: Browser, many: tuple[list[Leaderboard], Path]) -> Iterator[Browser]:
    """The page in the browser."""
    browser.view(width=1280)
    browser.open(many[1])
    yield browser
    assert browser.complaints() == []


def ordered(boards: list[Leaderboard], metric: str, *, descending: bool) -> list[str]:
    """The names of cells in the order of a metric of generation."""
    (board,) = (board for board in boards if board.generates)
    rows = sorted(board.rows, key=lambda row: (-1 if descending else 1) * row.cells[metric].summary.value)
    return [row.model.label for row in rows]


def test_few_rows_are_there_and_scrolling_reaches_every_one(shown, many):
    expected = ordered(many[0], "gfd_digits", descending=False)
    assert len(expected) == CELLS
    found: dict[int, str] = {}
    widths = shown.run(WIDTHS)
    for pixels in (*range(0, 52 * CELLS, 600), 10**6):
        shown.run(scrolled(pixels))
        indices, names = shown.run(INDICES), shown.run(NAMES)
        assert len(indices) <= 45
        assert indices == list(range(indices[0], indices[0] + len(indices)))
        found |= dict(zip(indices, names, strict=True))
        assert shown.run(WIDTHS) == widths, "columns keep their widths"
        assert shown.run(f"[...new Set({ROWS}.map((row) => row.offsetHeight))]") == [52]
    assert [found[index] for index in sorted(found)] == expected
    assert min(found) == 3, "after two rows of headings"
    last = f"{ROWS}.at(-1).getBoundingClientRect()"
    assert shown.run(f"{last}.bottom <= {SCROLLER}.getBoundingClientRect().bottom + 1"), "the last row is whole"


def test_the_search_finds_a_model_at_the_far_end_and_says_how_many_fit(shown, many):
    far = ordered(many[0], "gfd_digits", descending=False)[-1]
    assert far not in shown.run(NAMES)
    shown.run(scrolled(2000))
    shown.run("document.querySelector('#filter').focus()")
    shown.call("Input.insertText", text=far.replace(" + ", " "))
    names = "[...document.querySelectorAll('[data-table=cells] tbody th')].map((th) => th.textContent)"
    fitting = shown.run(names)
    assert far in fitting
    assert len(fitting) <= len(GENERATORS)
    assert shown.run("document.querySelector('output').textContent").endswith(" of 200 models")
    assert shown.run("document.activeElement.id") == "filter"


def test_a_column_sorts_all_rows_and_starts_at_the_first(shown, many):
    shown.run(scrolled(3000))
    shown.run(f"{HEADER.format('gfd_digits')}.click()")
    descending = ordered(many[0], "gfd_digits", descending=True)
    assert shown.run(NAMES) == descending[: len(shown.run(NAMES))]
    assert shown.run(f"{SCROLLER}.scrollTop") == 0
    shown.run(f"{HEADER.format('model')}.click()")
    shown.run(scrolled(10**6))
    assert shown.run(NAMES)[-1] == max(descending)


def test_a_number_far_down_tells_its_records(shown, many):
    worst = ordered(many[0], "gfd_digits", descending=True)[0]
    shown.run(scrolled(10**6))
    shown.run(f"{ROWS}.at(-1).querySelector('td button').click()")
    assert shown.run("document.querySelector('#dialog-title').textContent") == f"gfd_digits of {worst}"
    (board,) = (board for board in many[0] if board.generates)
    (row,) = (row for row in board.rows if row.model.label == worst)
    text = shown.run("document.querySelector('dialog').textContent")
    assert all(f"generate-{record.id}" in text for record in row.records)
    assert "a value of the recipe 39" in text


def test_many_tokenizers_are_folded_up_and_can_be_hidden_at_once(shown):
    assert shown.run("document.querySelector('.many summary').textContent") == "tokenizer: 50 of 50"
    assert shown.run("document.querySelector('#controls').offsetHeight") < 120
    shown.run("document.querySelector('.many').open = true")
    shown.run("document.querySelector('.many .chip').click()")
    assert shown.run("document.querySelector('.many summary').textContent") == "tokenizer: 0 of 50"
    assert shown.run("document.querySelector('.many').open"), "it stays open"
    shown.run("[...document.querySelectorAll('.many .chip')].at(-1).click()")
    assert len(shown.run("[...document.querySelectorAll('[data-table=cells] tbody th')].map((th) => 1)")) == 3


def test_a_narrow_screen_shows_names_to_the_end(shown, many):
    shown.view(width=360, height=700)
    shown.open(many[1])
    assert shown.run("document.documentElement.scrollWidth") == 360
    assert shown.run(f"{ROWS}.every((row) => row.querySelector('th > div').scrollHeight <= 42)")
