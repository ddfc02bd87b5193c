"""Tables in every format: the same numbers, the best marked, and no name is taken for a command."""

import csv
import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from ldbench.results import latex, markdown, spreadsheet, terminal
from ldbench.results import store as stores
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.table import Entry, Table, legend_of, table_of

LEGEND = "What marks mean."
EVIL = "a|b_c*[link](http://x) <img src=x onerror=alert(1)> \\input{/etc/passwd} $x$ %c @team [red]x[/red]"


@pytest.fixture
def tables(store) -> Sequence[Table]:
    return [table_of(board) for board in build_leaderboards(stores.read_all(store))]


@pytest.fixture
def evil() -> Table:
    return Table(EVIL, [EVIL], [EVIL], [([EVIL], [Entry("1.5", "± 0.1", 2, 1, "")])], [EVIL])


def printed(tables: Sequence[Table], width: int = 140) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    terminal.show(tables, console)
    return console.file.getvalue()


def test_a_table_says_its_protocol_its_metrics_and_its_ranks(tables):
    reconstruct = tables[1]
    assert reconstruct.title.startswith("digits: reconstruct, protocol digits ")
    assert list(reconstruct.columns) == ["psnr ↑", "ssim ↑", "rfd_digits ↓"]
    (names, places) = reconstruct.rows[0]
    assert list(names) == ["vmae"]
    assert places[0].rank_and_mark == "#1"
    assert places[0].noise_and_seeds.endswith("(2)")
    assert any("Curve smoothness/psnr over eps: 5 points." in table.notes for table in tables)


def test_rows_stand_in_the_order_of_the_first_ranked_column_and_unranked_ones_last(make):
    psnr = {"worst": 20.0, "best": 30.0, "middle": 25.0}
    records = [make(tokenizer=name, metrics={"psnr": value}) for name, value in psnr.items()]
    records.append(make(tokenizer="without", metrics={"ssim": 0.9}))
    (table,) = map(table_of, build_leaderboards(records))
    assert [names[0] for names, _ in table.rows] == ["best", "middle", "worst", "without"]


def test_the_legend_explains_what_is_there_and_nothing_else(tables):
    legend = legend_of(tables)
    for sign, used in (
        ("#1", True),
        ("≈", True),
        ("±", True),
        ("[ ]", True),
        ("In brackets, to read others by: perfect generator, held-out images.", True),
        ("¹", True),
        ("?:", False),
    ):
        assert (sign in legend) == used, sign
    unranked = Table("t", ["tokenizer"], ["n"], [(["vmae"], [Entry("1"), None])])
    assert legend_of([unranked]) == ""
    assert legend_of([Table("t", ["tokenizer"], ["n"], [(["vmae"], [Entry("1", rank=2, mark="?¹")])])]) == (
        "#1 is the best of a column. ¹: for these weights, not over tokenizer seeds. ?: noise unknown."
    )


def test_values_to_read_others_by_are_rows_of_their_own(tables):
    (perfect, _), (heldout, _) = (row for row in tables[0].rows if row[0][0].startswith("("))
    assert (perfect, heldout) == (["(perfect generator)", ""], ["(held-out images)", ""])
    place = tables[0].columns.index("gfd_digits ↓")
    values = [entries[place] for names, entries in tables[0].rows if names[0].startswith("(")]
    assert [(value.value, value.noise, value.rank) for value in values] == [
        ("0.03700", "", None),
        ("0.07560", "[0.07000, 0.09000]", None),
    ]


def test_the_terminal_shows_every_model_once_a_table(tables):
    text = printed(tables)
    assert text.count("lightningdit") == 3
    assert "#1" in text
    assert "≈" in text


LONG = "tokenizer_of_many_words (mask_ratio=0.75, width=1024)"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_models_are_rows_and_no_name_is_broken(width):
    columns = [f"reconstruction/metric_{i} ↑" for i in range(12)]
    rows = [([LONG, "lightningdit"], [Entry(f"{i}.5", "± 0.1", 2, 1) for i in range(12)]), (["vmae", "-"], [None] * 12)]
    text = printed([Table("many", ["tokenizer", "generator"], columns, rows)], width=width)
    lines = [line.rstrip() for line in text.splitlines()]
    for name in (LONG, "vmae"):
        assert sum(name in line for line in lines) >= 1
    for index, column in enumerate(columns):
        above = next(place for place, line in enumerate(lines) if column in line)
        assert f"{index}.5 #1" in "\n".join(lines[above : above + 4]), "its number stands below or beside it"
    if width == 120:
        assert max(map(len, lines)) <= width
        assert text.count(LONG) == text.count("vmae") == text.count("generator ") == 12, "once in each block"
    else:
        assert text.count(LONG) == text.count("vmae") == 1


def test_a_table_that_fits_is_one_block():
    rows = [(["vmae"], [Entry(str(i)) for i in range(12)])]
    text = printed([Table("many", ["tokenizer"], [f"m{i}" for i in range(12)], rows)], width=80)
    assert text.count("tokenizer") == text.count("vmae") == 1


def test_a_board_of_nothing_but_curves_has_no_empty_grid(make):
    (table,) = map(table_of, build_leaderboards([make(metrics={"gmm/nll/k=5": 1.0})]))
    assert "tokenizer" not in printed([table])
    assert "Curve gmm/nll over k: 1 points." in printed([table])
    assert "| tokenizer" not in markdown.render([table], LEGEND)
    assert "tabular" not in latex.render([table], LEGEND)


def test_the_terminal_takes_no_markup_from_names(evil):
    assert "[red]x[/red]" in printed([evil], width=400)


def test_markdown_makes_nothing_of_names(evil):
    text = markdown.render([evil], LEGEND)
    row = text.splitlines()[-3]
    assert row.startswith("| a\\|b\\_c\\*\\[link\\](http://x) \\<img src=x onerror=alert(1)\\>")
    assert "@team" not in text
    assert row.count("|") - row.count("\\|") == 3
    assert "**1.5** ± 0.1 (2)" in row


def test_latex_runs_nothing_of_names(evil):
    text = latex.render([evil], LEGEND)
    assert r"\input" not in text
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert r"\$x\$ \%c" in text
    assert r"\textbf{1.5} {\scriptsize $\pm$ 0.1 (2)}" in text
    assert all(text.count(word) == 1 for word in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_latex_has_as_many_cells_in_every_line(tables):
    text = latex.render(tables[:2], LEGEND)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in body} == {3}
    assert text.encode("ascii", errors="ignore").decode().count("\\begin{table}") == 2


def test_csv_has_every_number_with_its_rank_and_records(store):
    boards = build_leaderboards(stores.read_all(store))
    lines = list(csv.DictReader(io.StringIO(spreadsheet.render(boards, []))))
    measured = [line for line in lines if line["origin"] == "measured"]
    assert len(measured) == sum(len(row.cells) for board in boards for row in board.rows)
    others = {(line["metric"], line["origin"], line["value"]) for line in lines if line["origin"] != "measured"}
    assert others == {("gfd_digits", "perfect generator", "0.037"), ("gfd_digits", "held-out images", "0.0756")}
    (best,) = (line for line in lines if line["metric"] == "psnr" and line["rank"] == "1")
    assert (best["tokenizer"], best["seeds"], best["within_noise"], best["origin"]) == ("vmae", "2", "yes", "measured")
    assert len(best["records"].split()) == 2
    curve = [line for line in lines if line["metric"].startswith("smoothness/psnr/eps=")]
    assert len(curve) == 15
    assert {line["rank"] for line in curve} == {""}


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_a_spreadsheet_takes_no_name_for_a_formula(make, sign):
    lines = list(
        csv.reader(
            io.StringIO(
                spreadsheet.render(
                    build_leaderboards([make(tokenizer=f'{sign}cmd|" /C calc"!A0', metrics={"psnr": -3.0})]), []
                )
            )
        )
    )
    assert lines[1][lines[0].index("tokenizer")] == f'\'{sign}cmd|" /C calc"!A0'
    assert lines[1][lines[0].index("value")] == "-3.0"
