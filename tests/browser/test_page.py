"""The page in a real browser: sorting, filters, provenance; by mouse and keyboard, wide and narrow, light and dark."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.made_records import SHOWN, save_reconstructions, save_samples

from ldbench.config.compose import conf_dir
from ldbench.core.estimate import Estimate
from ldbench.io.files import digest
from ldbench.results import html, published, records
from ldbench.results.board_comparisons import page_comparisons
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.records import Record
from ldbench.results.table import Entry, Table

pytestmark = pytest.mark.browser

HIGHER_IS_BETTER = {"psnr": True, **dict.fromkeys(("rfd_digits", "gfd_digits", "rfid", "gfid"), False)}
EVIL = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
NAMES = "[...document.querySelectorAll('[data-table=\"{}\"] tbody th')].map((e) => e.textContent)"
VALUES = (
    "[...document.querySelectorAll('[data-table=\"{}\"] tbody tr')]"
    ".map((r) => r.querySelectorAll('td .value')[{}].textContent)"
)
TITLE = "document.querySelector('#dialog-title')?.textContent"
CHOOSE = """(() => {{
  const s = document.querySelector('#{}');
  s.value = [...s.options].find((o) => o.text.startsWith('{}')).value;
  s.dispatchEvent(new Event('change'));
}})()"""
OPEN = "document.querySelector('dialog').open"


def record_of(
    job: str, tokenizer: str, generator: str | None, seed: int, *, data: str = "digits", **metrics: float
) -> Record:
    fields = {"name": "digits", "split": "test", "job": job}
    protocol = {**fields, "hash": records.protocol_hash(fields)}
    artifacts = {"tokenizer": f"{tokenizer}-1"} | (
        {} if generator is None else {"generator": f"{generator}-{tokenizer}-{seed}"}
    )
    return Record(
        id=digest([job, tokenizer, generator, seed])[:16],
        job=job,
        subject={"tokenizer": tokenizer, "generator": generator, "data": data},
        metrics={name.replace("__", "/").replace("_is_", "="): Estimate(value) for name, value in metrics.items()},
        protocol=protocol,
        artifacts=artifacts,
        config={"tokenizer": {"name": tokenizer, "seed": 0}, "seed": seed},
        environment={"python": "3.11"},
        created="2026-01-01T00:00:00+00:00",
        higher_is_better={name: HIGHER_IS_BETTER[name] for name in metrics if name in HIGHER_IS_BETTER},
        settings={},
        models={role: digest(name) for role, name in (("tokenizer", tokenizer), ("generator", generator)) if name},
        seeds={"tokenizer": 0} | ({} if generator is None else {"generator": seed}),
    )


CELLS = {
    ("a", "dit"): 0.9,
    ("a", "sit"): 0.6,
    ("b", "dit"): 0.7,
    ("b", "sit"): 0.5,
    ("c", "dit"): 0.8,
    ("c", "sit"): 0.55,
}
QUALITY = {"a": (20.0, 0.3), "b": (30.0, 0.1), "c": (25.0, 0.05)}


@pytest.fixture
def made() -> Sequence[Record]:
    """Three tokenizers and two generators; b and sit is best by gFD, c has the least rFD."""
    found = []
    for tokenizer, (psnr, rfd) in QUALITY.items():
        points = {f"smoothness__psnr__eps_is_{eps}": psnr / (1 + eps) for eps in (1, 2, 3)}
        found.append(
            record_of("reconstruct", tokenizer, None, 0, psnr=psnr, rfd_digits=rfd, probe__chance=0.1, **points)
        )
    for (tokenizer, generator), gfd in CELLS.items():
        found += [
            record_of("generate", tokenizer, generator, seed, gfd_digits=gfd + 0.001 * seed, gfd_digits_floor=0.07)
            for seed in (0, 1)
        ]
    return found


PREDICTED = Table(
    "digits: what predicts gfd",
    ["measurement"],
    ["Spearman", "p"],
    [(["psnr ↑"], [Entry("-0.88", "[-0.99, -0.51]"), None])],
    ["A note."],
)


@pytest.fixture
def page(made: Sequence[Record], tmp_path: Path) -> Path:
    from PIL import Image

    sheet = tmp_path / "samples.png"
    Image.new("L", (8, 8), 90).save(sheet)
    path = tmp_path / "leaderboard.html"
    tables = published.read_tables(conf_dir() / "experiments" / "published")
    path.write_text(
        html.render(build_leaderboards(made), [PREDICTED], tables, {made[-1].id: [sheet], made[-2].id: [sheet]}, "2026")
    )
    return path


@pytest.fixture
def shown(browser, page: Path):
    browser.view(width=1280)
    browser.open(page)
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]


def test_the_best_stands_first_and_a_click_on_the_header_turns_the_order(shown):
    assert shown.run(NAMES.format("cells")) == ["b + sit", "c + sit", "a + sit", "b + dit", "c + dit", "a + dit"]
    shown.click('[data-table="cells"] thead [aria-sort] button')
    assert shown.run(NAMES.format("cells"))[0] == "a + dit"
    assert (
        shown.run("document.querySelector('[data-table=\"cells\"] [aria-sort]').getAttribute('aria-sort')")
        == "descending"
    )
    assert shown.run(NAMES.format("tokenizers")) == ["b", "c", "a"], "a table is sorted by itself"


@pytest.mark.slow
def test_a_column_of_another_job_sorts_cells_too(shown):
    shown.run(
        "[...document.querySelectorAll('[data-table=\"cells\"] thead button')]"
        ".find((b) => b.textContent.startsWith('rfd_digits')).click()"
    )
    assert [name[0] for name in shown.run(NAMES.format("cells"))] == ["c", "c", "b", "b", "a", "a"]


def test_filters_hide_models_everywhere(shown):
    shown.run("document.querySelector('#filter').focus()")
    shown.call("Input.insertText", text="sit B")
    assert shown.run(NAMES.format("cells")) == ["b + sit"]
    assert shown.run("document.querySelectorAll('[data-plot=scatter] .mark').length") == 1
    assert shown.run("document.activeElement.id") == "filter"
    shown.call("Input.insertText", text=" nothing such")
    assert (
        shown.run("document.querySelector('[data-table=\"cells\"] [role=status]').textContent")
        == "Nothing fits the filter."
    )


@pytest.mark.slow
def test_a_chip_takes_a_tokenizer_out_and_brings_it_back(shown):
    chip = "[aria-label=tokenizer] .chip"
    shown.click(chip)
    assert not [name for name in shown.run(NAMES.format("cells")) if name.startswith("a")]
    assert shown.run("document.querySelectorAll('[data-plot=curves] polyline').length") == 2
    assert shown.run(f"document.querySelector('{chip}').getAttribute('aria-pressed')") == "false"
    assert shown.run(f"document.activeElement === document.querySelector('{chip}')"), "the keyboard stays where it was"
    shown.click(chip)
    assert len(shown.run(NAMES.format("cells"))) == 6


def test_what_a_perfect_generator_gets_is_the_last_row(shown):
    row = "[...document.querySelector('[data-table=\"cells\"] tfoot tr:last-child').children].map((c) => c.textContent)"
    assert shown.run(row)[:2] == ["perfect generator", "0.07000"]


@pytest.mark.slow
def test_chance_is_shown_on_demand(shown):
    heads = "[...document.querySelectorAll('[data-table=\"tokenizers\"] thead button')].map((b) => b.textContent)"
    assert "probe/chance" not in shown.run(heads)
    shown.run("[...document.querySelectorAll('.chip')].find((c) => c.textContent === 'chance').click()")
    assert "probe/chance" in shown.run(heads)


def test_a_click_on_a_number_tells_its_protocol_and_records(shown, made):
    shown.click('[data-table="cells"] tbody td button')
    assert shown.run(OPEN)
    assert shown.run(TITLE) == "gfd_digits of b + sit"
    text = shown.run("document.querySelector('dialog').textContent")
    assert "Rank 1 of 6 measured under the same conditions" in text
    assert "split" in text
    names = [
        f"generate-{record.id}"
        for record in made
        if record.subject == {"tokenizer": "b", "generator": "sit", "data": "digits"}
    ]
    assert len(names) == 2
    assert all(name in text for name in names)
    assert "sit-b-0" in text
    shown.press("Escape")
    assert not shown.run(OPEN)


def test_the_keyboard_opens_what_the_mouse_opens(shown):
    shown.run("document.querySelector('[data-table=\"tokenizers\"] tbody td button').focus()")
    shown.press("Enter")
    assert shown.run(TITLE) == "psnr of b"
    shown.press("Escape")
    shown.run("document.querySelector('[data-plot=curves] .mark').focus()")
    shown.press("Enter")
    assert shown.run(TITLE) == "smoothness/psnr/eps=1 of a"


def test_ranks_and_noise_are_marked(shown):
    # gFD; PSNR of both b; rFD of both c
    assert shown.run("document.querySelectorAll('[data-table=\"cells\"] td.best').length") == 1 + 2 + 2
    ranks = shown.run(
        "[...document.querySelectorAll('[data-table=\"tokenizers\"] tbody tr')]"
        ".map((r) => r.querySelector('.rank').textContent)"
    )
    assert ranks == ["1", "2?", "3?"]


def test_the_front_is_what_no_other_cell_beats(shown):
    front = (
        "[...document.querySelectorAll('[data-plot=scatter] .mark[data-front=yes]')]"
        ".map((m) => m.getAttribute('aria-label').split(':')[0])"
    )
    assert sorted(shown.run(front)) == ["b + sit", "c + sit"]
    shown.run(CHOOSE.format("axis-x", "psnr"))
    assert shown.run(front) == ["b + sit"]


@pytest.mark.slow
def test_what_predicts_generation_is_a_table_of_its_own(shown):
    assert shown.run("document.querySelector('[data-predictions] h3').textContent") == "digits: what predicts gfd"
    cells = "[...document.querySelectorAll('[data-predictions] tbody tr > *')].map((e) => e.textContent)"
    assert shown.run(cells) == ["psnr ↑", "-0.88[-0.99, -0.51]", "\u2013"]


def test_sheets_and_published_tables_are_set_apart(shown):
    assert shown.run("document.querySelectorAll('[data-sheets] img').length") == 1
    assert (
        shown.run(
            "(async (img) => { img.scrollIntoView(); await img.decode(); return img.naturalWidth; })"
            "(document.querySelector('[data-sheets] img'))"
        )
        == 8
    )
    assert shown.run("document.querySelectorAll('[data-published] details').length") >= 20
    assert shown.run("document.querySelectorAll('[data-published] .rank, [data-published] .best').length") == 0


@pytest.mark.slow
def test_papers_points_are_hollow_and_on_no_front(browser, tmp_path):
    mine = [
        record_of("reconstruct", "b", None, 0, data="imagenet256", rfid=9.0),
        record_of("generate", "b", "sit", 0, data="imagenet256", gfid=99.0),
    ]
    path = tmp_path / "papers.html"
    path.write_text(
        html.render(
            build_leaderboards(mine), [], published.read_tables(conf_dir() / "experiments" / "published"), {}, "now"
        )
    )
    browser.open(path)
    assert browser.run("document.querySelectorAll('[data-plot=scatter] path.paper').length") > 20
    assert (
        browser.run(
            "document.querySelectorAll('[data-plot=scatter] path.paper[data-front], "
            "[data-plot=scatter] path.paper[fill=currentColor]').length"
        )
        == 0
    )
    assert browser.run("document.querySelectorAll('[data-plot=scatter] .mark[data-front=yes]').length") == 1, (
        "ours is first among ours"
    )
    assert browser.run("document.querySelectorAll('[data-published] details[open]').length") > 10
    assert browser.complaints() == []


def test_a_narrow_screen_scrolls_tables_and_not_the_page(shown, page):
    shown.view(width=360, height=700)
    shown.open(page)
    assert shown.run("document.documentElement.scrollWidth") == 360
    assert shown.run("document.querySelector('[data-table=\"cells\"] .scroll').scrollWidth") > 360
    assert shown.run("document.querySelector('[data-plot=scatter] svg[role]').getBoundingClientRect().right") <= 360


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(shown, scheme):
    shown.view(width=1280, scheme=scheme)
    contrast = """(() => {
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = (color) => { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => linear(v / 255));
        return .2126 * r + .7152 * g + .0722 * b; };
      const paper = light(getComputedStyle(document.documentElement).backgroundColor);
      return ['body', '#summary', '.noise', '.c0', '.c1', '.c2', 'th[aria-sort] button'].map((selector) => {
        const ink = light(getComputedStyle(document.querySelector(selector)).color);
        return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05); });
    })()"""
    assert min(shown.run(contrast)) >= 4
    dark = "getComputedStyle(document.documentElement).backgroundColor === 'rgb(20, 22, 26)'"
    assert shown.run(dark) == (scheme == "dark")


@pytest.mark.slow
def test_the_button_turns_the_colors_whatever_the_system_says(shown):
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    before = shown.run(paper)
    shown.click("#theme")
    assert shown.run(paper) == before
    shown.click("#theme")
    assert shown.run(paper) != before


def test_names_of_strangers_are_text_and_run_nothing(browser, tmp_path):
    evil = record_of("reconstruct", EVIL, None, 0, psnr=3.0)
    path = tmp_path / "evil.html"
    path.write_text(
        html.render(
            build_leaderboards([evil, record_of("reconstruct", "b", None, 0, psnr=4.0)]),
            [Table(EVIL, ["m"], [EVIL], [([EVIL], [Entry(EVIL)])], [EVIL])],
            [],
            {},
            EVIL,
        )
    )
    browser.open(path)
    browser.run("document.querySelectorAll('[data-table] tbody td button')[1].click()")
    assert EVIL in browser.run(TITLE)
    assert browser.run("document.title") == "ldbench leaderboard"
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert (browser.requests(), browser.complaints()) == ([path.as_uri()], [])


def test_a_page_without_records_says_how_to_make_some(browser, tmp_path):
    path = tmp_path / "empty.html"
    path.write_text(html.render([], [], [], {}, "now"))
    browser.open(path)
    assert "python -m ldbench.train" in browser.run("document.querySelector('main').textContent")
    assert browser.complaints() == []


def test_somebodys_samples_have_a_table_of_their_own(browser, tmp_path):
    def of_samples(name: str, gfd: float) -> Record:
        found = record_of("evaluate", "none", None, 0, gfd_digits=gfd)
        by_role = {"samples": digest(name)}
        return replace(
            found,
            id=digest(name)[:16],
            subject={"tokenizer": None, "generator": None, "data": "digits", "samples": name},
            artifacts={"samples": f"{name}-1"},
            models=by_role,
            weights=by_role,
            seeds={"samples": None},
            components={"samples": "samples"},
        )

    made = [of_samples("theirs", 0.4), of_samples("others", 0.2), record_of("reconstruct", "a", None, 0, psnr=30.0)]
    page = tmp_path / "page.html"
    page.write_text(html.render(build_leaderboards(made), [], [], {}, "now"), encoding="utf-8")
    browser.open(page)
    assert browser.run(NAMES.format("samples")) == ["others", "theirs"]
    assert browser.run(NAMES.format("tokenizers")) == ["a"]
    assert browser.run("document.querySelectorAll('[data-table=\"cells\"]').length") == 0


def test_saved_images_stand_side_by_side_and_open_larger(browser, tmp_path):
    made = [record_of("reconstruct", name, None, 0, psnr=30.0) for name in "ab"]
    made += [record_of("generate", "a", name, 0, gfd_digits=1.0) for name in ("dit", "sit")]
    gray = {level: np.full((8, 8, 3), level, dtype=np.uint8) for level in (10, 20, 90, 200)}
    for record, level in zip(made[:2], (20, 90), strict=True):
        save_reconstructions(tmp_path, record, {"0": (gray[10], gray[10]), "1": (gray[10], gray[level])})
    for record, level in zip(made[2:], (20, 200), strict=True):
        save_samples(tmp_path, record, {(EVIL[-4:-1], 0): gray[level]}, None)
    boards = build_leaderboards(made)
    page = tmp_path / "page.html"
    page.write_text(html.render(boards, [], [], {}, "now", page_comparisons(boards, tmp_path, SHOWN)))
    browser.view(width=1280)
    browser.open(page)
    part = "document.querySelector('[data-comparison={}]')"
    names = "[...{}.querySelectorAll('tbody tr:first-child img')].map((img) => img.alt)"
    reconstructions = part.format("reconstructions")
    assert browser.run(names.format(reconstructions)) == [
        *("original of 1", "reconstruction of 1: a", "error map of 1: a"),
        *("reconstruction of 1: b", "error map of 1: b"),
    ]
    drawn = """(async (img) => { img.scrollIntoView(); await img.decode();
      const canvas = document.createElement('canvas').getContext('2d');
      canvas.drawImage(img, 0, 0); return [...canvas.getImageData(3, 3, 1, 1).data].slice(0, 3); })"""
    first = "querySelectorAll('tbody img')[{}]"
    levels = [browser.run(f"{drawn}({reconstructions}.{first.format(place)})") for place in (0, 1, 3, 4)]
    assert levels == [[10] * 3, [20] * 3, [90] * 3, [252, 255, 164]]
    assert "80 of 255 levels" in browser.run(f"{reconstructions}.querySelector('.scale').textContent")
    assert len(browser.run(names.format(part.format("samples")))) == 2
    browser.run("document.querySelector('[aria-label=tokenizer] .chip').click()")  # a
    assert len(browser.run(names.format(reconstructions))) == 3, "the original and b"
    assert browser.run(part.format("samples")) is None, "both generators are of a"
    browser.click("[data-comparison=reconstructions] td:nth-child(4) button")
    assert browser.run(TITLE) == "error map of 1: b"
    assert browser.run("document.querySelectorAll('dialog img').length") == 3
    assert (browser.requests(), browser.complaints()) == ([page.as_uri()], [])
