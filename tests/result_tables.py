"""The tables of committed records, as pages of results have them: `python -m tests.result_tables [PAGE]` prints them.

A test holds every page to them. Models are in the order of the first column.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from ldbench.core.intervals import student_mean
from ldbench.results import store
from ldbench.results.leaderboards import Leaderboard, build_leaderboards
from ldbench.results.table import Entry, table_of

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class ResultTable:
    """A table of a page: a job's leaderboard in a folder of records, and its columns by metric, with their titles."""

    records: str
    job: str
    columns: Mapping[str, str]


def generated(data: str) -> ResultTable:
    """The table of samples on images of a dataset."""
    names = {name: f"`{name}`" for name in (f"gfd_{data}", f"kid_{data}")}
    names |= {f"{name}_{data}": title for name, title in SAMPLES.items()}
    return ResultTable(FOLDERS[data], "generate", names)


def reconstructed(data: str) -> ResultTable:
    """The table of reconstructions of images of a dataset."""
    names = {name: f"`{name}`" for name in ("psnr", "ssim", f"rfd_{data}")}
    return ResultTable(FOLDERS[data], "reconstruct", {**names, f"class_accuracy_{data}": "class accuracy"})


@dataclass(frozen=True)
class PredictionTable:
    """The rank correlations of the last record of `predict` in a folder: the measurements that it names in advance and
    those of `exploratory`, each by generator.
    """

    records: str
    generators: Sequence[str]
    exploratory: Sequence[str]


@dataclass(frozen=True)
class PairedTable:
    """What one generator has more than another on the same tokenizers: the mean difference over tokenizer seeds of the
    means over generator seeds, with Student's interval. `pairs`: tokenizer, generator, and the one it is compared with.
    """

    records: str
    metrics: Sequence[str]
    pairs: Sequence[tuple[str, str, str]]


SAMPLES = {name: f"`{name}`" for name in ("precision", "recall", "density", "coverage")}
SAMPLES |= {"class_accuracy": "class accuracy"}
FOLDERS = {"digits": "experiments/matrix_digits/records", "fashion_mnist": "experiments/matrix_fashion/records"}
FASHION_TOKENIZERS = ("sdvae", "vavae", "vmae", "softvq", "maetok", "rae")
FASHION_PAIRS = [
    (f"{tokenizer}_fashion", f"{generator}_fashion", f"{other}_fashion")
    for generator, other in (("lightningdit", "sit"), ("dit", "sit"))
    for tokenizer in FASHION_TOKENIZERS
]
FASHION_PAIRS += [("vmae_fashion", f"{generator}_fashion", "sit_fashion") for generator in ("sit_repa", "meanflow")]
PAGES: Mapping[str, Sequence[ResultTable | PredictionTable | PairedTable]] = {
    "docs/digits.md": [generated("digits"), reconstructed("digits")],
    "docs/fashion-mnist.md": [
        generated("fashion_mnist"),
        reconstructed("fashion_mnist"),
        PairedTable(
            FOLDERS["fashion_mnist"],
            ("gfd_fashion_mnist", "kid_fashion_mnist", "recall_fashion_mnist", "class_accuracy_fashion_mnist"),
            FASHION_PAIRS,
        ),
    ],
    "docs/prediction.md": [
        PredictionTable(
            FOLDERS["fashion_mnist"],
            ("dit_fashion", "sit_fashion", "lightningdit_fashion"),
            ("smoothness/rfd_fashion_mnist/eps=0.3", "smoothness/ssim/eps=0.1"),
        )
    ],
}


def board_of(table: ResultTable) -> Leaderboard:
    """The leaderboard of a table: that with the most models, where records of several protocols lie together."""
    boards = build_leaderboards(store.read_all(ROOT / table.records))
    first = next(iter(table.columns))
    found = [board for board in boards if board.conditions.job == table.job and first in board.metrics]
    return max(found, key=lambda board: len(board.rows))


def render(table: ResultTable | PredictionTable | PairedTable) -> list[str]:
    """A table's lines."""
    if isinstance(table, PredictionTable):
        return render_predictions(table)
    if isinstance(table, PairedTable):
        return render_differences(table)
    board = board_of(table)
    text = table_of(board)
    places = [board.columns.index(metric) for metric in table.columns]
    lines = [line([*text.labels, *table.columns.values()]), "|" + "---|" * (len(text.labels) + len(places))]
    for names, entries in text.rows:
        titles = [name if not name or name.startswith("(") else f"`{name}`" for name in names]
        lines.append(line([*titles, *(cell(entries[place]) for place in places)]))
    return lines


def render_predictions(table: PredictionTable) -> list[str]:
    """A row for each measurement, those with the largest correlation first, and exploratory ones below."""
    records = [record for record in store.read_all(ROOT / table.records) if record.job == "predict"]
    record = max(records, key=lambda record: record.created)

    def value(kind: str, generator: str, measurement: str) -> float:
        return record.metrics[f"predict/{kind}/{generator}/{measurement}"].value

    def largest(measurement: str) -> float:
        return max(abs(value("spearman", generator, measurement)) for generator in table.generators)

    first_metrics = f"predict/spearman/{table.generators[0]}"
    named = [name for name in record.settings["predictors"] if f"{first_metrics}/{name}" in record.metrics]
    names = [*sorted(named, key=largest, reverse=True), *table.exploratory]
    first, *others = (f"`{generator}`" for generator in table.generators)
    titles = ["measurement", f"{first}: Spearman, Kendall", *others, "tokenizers"]
    lines = [line(titles), "|" + "---|" * len(titles)]
    for name in names:
        title = f"`{name}`" + (" (exploratory)" if name in table.exploratory else "")
        cells = (f"{value('spearman', g, name):.2f}, {value('kendall', g, name):.2f}" for g in table.generators)
        lines.append(line([title, *cells, f"{value('tokenizers', table.generators[0], name):.0f}"]))
    return lines


def render_differences(table: PairedTable) -> list[str]:
    """A row for each pair, with a difference and its interval for each metric."""
    records = [record for record in store.read_all(ROOT / table.records) if record.job == "generate"]

    def by_tokenizer(tokenizer: str, generator: str, metric: str) -> dict[int | None, float]:
        """The mean over generator seeds by tokenizer seed."""
        found: dict[int | None, list[float]] = defaultdict(list)
        for record in records:
            if (record.subject["tokenizer"], record.subject["generator"]) == (tokenizer, generator):
                found[record.seeds["tokenizer"]].append(record.metrics[metric].value)
        return {seed: fmean(values) for seed, values in found.items()}

    lines = [line(["tokenizer", "generator", "than", *(f"`{metric}`" for metric in table.metrics)])]
    lines.append("|" + "---|" * (3 + len(table.metrics)))
    for tokenizer, generator, other in table.pairs:
        cells = []
        for metric in table.metrics:
            ours, theirs = (by_tokenizer(tokenizer, name, metric) for name in (generator, other))
            assert ours.keys() == theirs.keys(), (tokenizer, generator, other)
            found = student_mean(torch.tensor([ours[seed] - theirs[seed] for seed in ours], dtype=torch.float64))
            cells.append(f"{found.value:+.3g} ({found.low:+.3g} to {found.high:+.3g})")
        lines.append(line([*(f"`{name}`" for name in (tokenizer, generator, other)), *cells]))
    return lines


def cell(entry: Entry | None) -> str:
    """A number with its noise over seeds and its rank."""
    if entry is None:
        return ""
    noise = entry.noise if entry.seeds > 1 else ""
    return " ".join(filter(None, (entry.value, noise, entry.rank_and_mark)))


def line(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Prints the tables of the pages that are named, or of all."""
    for page in sys.argv[1:] or PAGES:
        for table in PAGES[page]:
            title = table.job if isinstance(table, ResultTable) else type(table).__name__
            sys.stdout.write("\n".join([f"{page}: {title}", *render(table), "", ""]))


if __name__ == "__main__":
    main()
