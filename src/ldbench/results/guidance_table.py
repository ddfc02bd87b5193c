"""How samples were guided, in words, and the numbers of models side by side by their guidance."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ldbench.results.leaderboards import Leaderboard
from ldbench.results.records import Record
from ldbench.results.table import ARROWS, Entry, Table, entry_of

TUNED = "guided, tuned"
NOTE = (
    "Each column has a protocol of its own, so that numbers are ranked within columns alone. Tuned: each model at the "
    "best of its settings, found by the search that the protocol holds and measured on other noise; what the search "
    "cost is in the leaderboard of job guidance."
)


def guidance_of(record: Record) -> str | None:
    """How a record's samples were guided; None for records of other measurements."""
    if record.job not in ("generate", "guidance"):
        return None
    described = record.protocol.get("guidance")
    if isinstance(described, Mapping) and "tuned" in described:
        return TUNED
    settings = record.config.get("guidance")
    if not isinstance(settings, Mapping):
        return None
    scale = settings.get("scale")
    if settings.get("component") == "none" or scale == 1:
        return "unguided"
    return f"guided, scale {scale:g}" if isinstance(scale, int | float) else "guided"


def board_guidance(board: Leaderboard) -> str | None:
    """How the samples of a leaderboard were guided; None if it has none, or if each model was guided its own way."""
    found = {guidance_of(record) for row in board.rows for record in row.records}
    return found.pop() if len(found) == 1 else None


def guidance_tables(boards: Sequence[Leaderboard]) -> list[Table]:
    """A table for each set of leaderboards of generation that differ in nothing but guidance, where some are tuned and
    have a ranked metric.
    """
    groups: dict[str, list[tuple[str, Leaderboard]]] = defaultdict(list)
    for board in boards:
        label = board_guidance(board)
        if label is not None:
            rest = {
                key: value
                for key, value in board.conditions.protocol.items()
                if key not in ("guidance", "hash", "name")
            }
            key = json.dumps([board.conditions.data, board.conditions.generation, rest, board.conditions.settings])
            groups[key].append((label, board))
    return [guidance_table(columns) for columns in groups.values() if len(columns) > 1 and any(map(is_tuned, columns))]


def is_tuned(labeled: tuple[str, Leaderboard]) -> bool:
    """Whether a leaderboard is of tuned models, which are ranked by some metric."""
    label, board = labeled
    return label == TUNED and board.first_ranked is not None


def guidance_table(labeled: Sequence[tuple[str, Leaderboard]]) -> Table:
    """The first ranked metric of each model, a column for each leaderboard: unguided, by scale, then tuned."""
    ordered = sorted(
        labeled, key=lambda pair: (pair[0] == TUNED, pair[0] != "unguided", pair[0], pair[1].conditions.key)
    )
    tuned = next(board for label, board in ordered if is_tuned((label, board)))
    metric = tuned.first_ranked
    assert metric is not None
    labels = [label for label, _ in ordered]
    columns = [
        label if labels.count(label) == 1 else f"{label} {board.conditions.protocol['hash'][:8]}"
        for label, board in ordered
    ]
    rows: dict[tuple[str, str], list[Entry | None]] = {}
    for index, (_, board) in enumerate(ordered):
        for row in board.rows:
            tokenizer = f"{row.model.tokenizer} ({row.model.variant})" if row.model.variant else row.model.tokenizer
            name = (tokenizer, row.model.generator or "-")
            rows.setdefault(name, [None] * len(ordered))[index] = entry_of(row.cells.get(metric))
    protocols = "; ".join(
        f"{column}: {board.conditions.short_name}" for column, (_, board) in zip(columns, ordered, strict=True)
    )
    return Table(
        f"{tuned.conditions.data}: {metric} by guidance",
        ["tokenizer", "generator"],
        [f"{column} {ARROWS[tuned.higher_is_better[metric]]}" for column in columns],
        [(list(name), entries) for name, entries in sorted(rows.items())],
        [f"Protocols: {protocols}.", NOTE],
    )
