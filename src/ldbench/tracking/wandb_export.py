"""Weights & Biases: the only door to it."""

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ldbench.io.files import digest
from ldbench.results import spreadsheet
from ldbench.results.records import OPTIONAL, Record, encode, path_of, write

if TYPE_CHECKING:
    from ldbench.results.reports import Report

log = logging.getLogger(__name__)

ENTRY = 60  # seconds that a server has to answer
SILENT = {
    "disable_git": True,
    "disable_code": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
}  # what a run would tell of the machine


def finish(*, failed: bool = False) -> None:
    """Ends the run that this process has open, if any, so that the next one does not continue it; as one that failed, if it did."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=int(failed))


def export(report: "Report", files: Sequence[Path], *, mode: str, project: str, folder: Path) -> None:
    """Makes a run of a report: its numbers as a table with typed columns, the page, sheets, and all of it with the records as an artifact.

    `mode` offline needs no account; `folder` is where runs are kept. The run's id is that of the records, so that the same ones make no other run.
    Raises ValueError, with what to do, where an online run cannot be made.
    """
    identity = run_id(report.records)
    mark = folder / "leaderboard" / f"{mode}-{project}-{identity}"
    if mark.is_file() and (mode == "online" or Path(mark.read_text().strip()).is_dir()):
        log.info("Nothing new since the %s run %s: %s", mode, identity, mark.read_text().strip())
        return
    folder.mkdir(parents=True, exist_ok=True)
    with quietly():
        try:
            run = begin_export(identity, mode=mode, project=project, folder=folder)
            shown = contents(report, files)
            run.log(shown)
            with TemporaryDirectory() as scratch:
                artifact = artifact_of(report, files, Path(scratch))
                artifact.add(shown["leaderboard"], "leaderboard")
                run.log_artifact(artifact)
            where = run.url if mode == "online" else str(Path(run.dir).parent)
        finally:
            finish()
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"{where}\n")
    log.info(
        "Exported to Weights & Biases, %s%s: %s", mode, " (wandb sync uploads it)" if mode == "offline" else "", where
    )


def begin_export(identity: str, *, mode: str, project: str, folder: Path) -> Any:
    """The run of an export, begun. Raises ValueError, with what to do, where Weights & Biases does not let it begin."""
    said = {"project": project, "id": identity, "name": identity, "job_type": "leaderboard"}
    try:
        return begin(mode=mode, folder=folder, settings=SILENT, **said)
    except ValueError as error:
        raise ValueError(
            f"{error} Set WANDB_API_KEY, or say wandb=offline, which needs no account. The tables and the page are written."
        ) from error


def begin(*, mode: str, folder: Path, settings: Mapping[str, Any], **said: Any) -> Any:
    """A run, begun, or gone on with where there is one of that id. Asks nobody anything.

    Raises ValueError, with the first line of what was wrong, where Weights & Biases does not let it begin.
    """
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    settled = wandb.Settings(init_timeout=ENTRY, silent=True, console="off", **settings)
    with quietly():
        try:
            return wandb.init(**said, mode=mode, resume="allow", dir=str(folder), settings=settled)
        except (
            Exception
        ) as error:  # no account, no server, no space, a run of that id elsewhere: its errors have no common class
            wandb.teardown()  # else this process would hold the id
            raise ValueError(f"Weights & Biases takes no {mode} run: {first_line(error)}.") from error


def first_line(error: Exception) -> str:
    """What an error says, without what follows it."""
    return (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")


def run_id(records: Sequence[Record]) -> str:
    """The id of a run of these records, whatever their order."""
    plain = [
        {key: value for key, value in asdict(record).items() if key not in OPTIONAL}
        | {"metrics": {name: list(map(encode, asdict(e).values())) for name, e in record.metrics.items()}}
        for record in records
    ]
    return f"leaderboard-{digest(sorted(map(digest, plain)))[:16]}"


def contents(report: "Report", files: Sequence[Path]) -> dict[str, Any]:
    """What a run shows: table, page, and sheets by model."""
    import wandb

    columns = list(spreadsheet.COLUMNS)
    rows = [[line.get(column) for column in columns] for line in spreadsheet.lines(report.boards, report.published)]
    table = wandb.Table(columns=columns, data=rows, dtype=list(spreadsheet.COLUMNS.values()), optional=True)
    (page,) = (file for file in files if file.suffix == ".html")
    shown = {
        f"{re.sub(r'[^A-Za-z0-9_]+', '_', path.stem)}/{row.records[0].job}-{row.records[0].id}": wandb.Image(
            str(path), caption=row.subject.label
        )
        for board in report.boards
        for row in board.rows
        for path in report.sheets.get(row.records[0].id, ())
    }
    return {"leaderboard": table, "page": wandb.Html(str(page), inject=False), **shown}


def artifact_of(report: "Report", files: Sequence[Path], scratch: Path) -> Any:
    """The artifact: written files, and each record with its sheets."""
    import wandb

    artifact = wandb.Artifact("leaderboard", type="leaderboard")
    for file in files:
        artifact.add_file(str(file), name=file.name)
    for record in report.records:
        artifact.add_file(str(write(record, scratch)), name=f"records/{path_of(scratch, record.job, record.id).name}")
        for sheet in report.sheets.get(record.id, ()):
            artifact.add_file(str(sheet), name=f"records/{record.job}-{record.id}/{sheet.name}")
    return artifact


@contextmanager
def quietly() -> Iterator[None]:
    """Nobody is asked for anything: what would read an answer finds none."""
    stdin = sys.stdin
    with Path(os.devnull).open() as nobody:
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = stdin
