"""Runs of Weights & Biases: trainings, records and leaderboards. The only module that imports wandb.

A training is one run, which is resumed after an interruption. A record is one run whose summary holds its numbers.
A leaderboard is one run with its table, page and records.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

from ldbench.io.files import digest
from ldbench.results import spreadsheet
from ldbench.results.records import OPTIONAL, Record, encode, path_of, write

if TYPE_CHECKING:
    from ldbench.results.reports import Report

log = logging.getLogger(__name__)

INIT_TIMEOUT = 60  # seconds that a server has to answer
Mode = Literal["disabled", "offline", "online"]
MODES: tuple[Mode, ...] = ("disabled", "offline", "online")  # the one that shares the least comes first
SETTINGS = {"disable_git": True, "disable_code": True}
NO_MACHINE = {**SETTINGS, "x_disable_meta": True, "x_disable_stats": True}  # nothing about the machine either
SUMMARIES = {  # what a run's summary holds of a figure; the first that fits counts
    **dict.fromkeys(("train/lr", "train/images_seen", "train/batch"), "last"),
    "train/grad_norm": "max,last",
    "train/*": "min,last",
    "heldout/*": "last",
}


@dataclass(frozen=True)
class Training:
    """A training as a run shows it: named by what is trained, identified by the digest of the artifact that results."""

    kind: Literal["tokenizer", "generator"]
    artifact: str  # the name of the artifact that results
    digest: str
    names: tuple[str, ...]  # of the tokenizer, of the generator if one is trained, of the data
    config: Mapping[str, Any]  # plain

    @property
    def name(self) -> str:
        """The display name: `tokenizer__generator__data-digest`."""
        return f"{'__'.join(self.names)}-{self.digest[:8]}"

    @property
    def id(self) -> str:
        """The run's id: the same for the same artifact."""
        return f"{self.kind}-{self.digest[:16]}"


def start_training(
    training: Training, *, project: str, entity: str | None, offline: bool, group: str | None, folder: Path
) -> Any:
    """Starts or resumes the run of a training.

    Raises ValueError, with what to do, if Weights & Biases does not let it start.
    """
    run = start_run(
        offline,
        folder,
        config={**training.config, "artifact": {"name": training.artifact, "digest": training.digest}},
        allow_val_change=True,
        project=project,
        entity=entity,
        id=training.id,
        name=training.name,
        job_type=training.kind,
        group=group,
    )
    for figure, summary in SUMMARIES.items():
        run.define_metric(figure, summary=summary)
    if run.resumed and run.step:
        log.info("That run has this training up to step %d: these steps are not sent again.", run.step - 1)
    return run


def send_record(
    record: Record,
    sheets: Sequence[Path],  # PNG files
    *,
    project: str,
    entity: str | None,
    offline: bool,
    group: str | None,
    folder: Path,
) -> None:
    """Logs a record as a run: its job as job type, its numbers and the ends of their intervals in the summary.

    The sheets are images of the run. Its config holds the record's subject, protocol, artifacts and config.
    Raises ValueError as `start_training` does.
    """
    names = [name for key in ("tokenizer", "generator", "samples", "data") if (name := record.subject.get(key))]
    described = {
        **record.config,
        "subject": dict(record.subject),
        "protocol": dict(record.protocol),
        "artifacts": dict(record.artifacts),
    }
    try:
        run = start_run(
            offline,
            folder,
            config=described,
            allow_val_change=True,
            project=project,
            entity=entity,
            id=f"{record.job}-{record.id}",
            name=f"{'__'.join(names)}-{record.id[:8]}",
            job_type=record.job,
            group=group,
        )
        ends = {"": "value", "_low": "low", "_high": "high"}
        values = {
            name + end: getattr(estimate, key) for name, estimate in record.metrics.items() for end, key in ends.items()
        }
        run.summary.update({name: value for name, value in values.items() if value is not None})
        if sheets:
            run.log({sheet.stem: picture(str(sheet)) for sheet in sheets})
    finally:
        finish()


def export(report: "Report", files: Sequence[Path], *, mode: Mode, project: str, folder: Path) -> None:
    """Logs a report as a run: a table with typed columns, the page, sheets, and an artifact with all files and records.

    `mode` offline needs no account; `folder` is the folder of runs. The run's id is that of the records, so that
    unchanged records make no second run. Raises ValueError, with what to do, if an online run cannot start.
    """
    identity = run_id(report.records)
    mark = folder / "leaderboard" / f"{mode}-{project}-{identity}"
    if mark.is_file() and (mode == "online" or Path(mark.read_text(encoding="utf-8").strip()).is_dir()):
        log.info("Nothing new since the %s run %s: %s", mode, identity, mark.read_text(encoding="utf-8").strip())
        return
    folder.mkdir(parents=True, exist_ok=True)
    with no_stdin():
        try:
            run = start_export(identity, mode=mode, project=project, folder=folder)
            contents = export_contents(report, files)
            run.log(contents)
            with TemporaryDirectory() as scratch:
                artifact = build_artifact(report, files, Path(scratch))
                artifact.add(contents["leaderboard"], "leaderboard")
                run.log_artifact(artifact)
            location = location_of(run, mode)
        finally:
            finish()
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"{location}\n", encoding="utf-8")
    log_location("Exported to Weights & Biases", location, mode)


def finish(*, failed: bool = False) -> None:
    """Ends the run that this process has open, if any, so that the next one does not continue it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=int(failed))


def validate_login(offline: bool) -> None:
    """Raises ValueError, with what to do, if runs are to be online and there is no login. Prompts for nothing."""
    if mode_of(offline) != "online":
        return
    import wandb

    with no_stdin():
        try:
            logged_in = wandb.login(verify=True)
        except Exception as error:  # no key, a wrong one, no server: its errors have no common class
            wandb.teardown()  # else this process would remember
            raise ValueError(refusal(first_line(error))) from error
    if not logged_in:
        raise ValueError(refusal("nobody is logged in"))


def mode_of(offline: bool) -> Mode:
    """Online, offline or disabled: of the config's mode and WANDB_MODE the one that shares less.

    Raises ValueError for a WANDB_MODE that does not exist.
    """
    from_environment = os.environ.get("WANDB_MODE", "")
    configured: Mode = "offline" if offline else "online"
    known: dict[str, Mode] = {
        **{"": configured, "dryrun": "offline", "run": "online", "shared": "online"},
        **{mode: mode for mode in MODES},
    }
    if from_environment not in known:
        raise ValueError(
            f"WANDB_MODE must be one of {', '.join(MODES)}, got {from_environment!r}. Unset it, or set one of these."
        )
    return min(configured, known[from_environment], key=MODES.index)


def start_run(offline: bool, folder: Path, **keywords: Any) -> Any:
    """Starts or resumes a run, and logs its location.

    Raises ValueError, with what to do, if Weights & Biases does not let it start.
    """
    mode = mode_of(offline)
    try:
        run = init(mode=mode, folder=folder, settings=SETTINGS, **keywords)
    except ValueError as error:
        if mode == "online":
            raise ValueError(refusal(str(error))) from error
        raise
    if mode != "disabled":
        log_location("Weights & Biases", location_of(run, mode), mode)
    return run


def start_export(identity: str, *, mode: Mode, project: str, folder: Path) -> Any:
    """Starts the run of an export.

    Raises ValueError, with what to do, if Weights & Biases does not let it start.
    """
    keywords = {"project": project, "id": identity, "name": identity, "job_type": "leaderboard"}
    try:
        return init(mode=mode, folder=folder, settings=NO_MACHINE, **keywords)
    except ValueError as error:
        raise ValueError(
            f"{error} {login_advice()}, or choose wandb=offline, which needs no account. "
            "The tables and the page are written."
        ) from error


def init(*, mode: Mode, folder: Path, settings: Mapping[str, Any], **keywords: Any) -> Any:
    """Starts a run, or resumes the one of that id. Prompts for nothing.

    Raises ValueError, with the first line of what was wrong, if Weights & Biases does not let it start.
    """
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    all_settings = wandb.Settings(init_timeout=INIT_TIMEOUT, silent=True, console="off", **settings)
    with no_stdin():
        try:
            return wandb.init(**keywords, mode=mode, resume="allow", dir=str(folder), settings=all_settings)
        except Exception as error:  # no account, server or space, a run of that id elsewhere: no common class
            wandb.teardown()  # else this process would hold the id
            raise ValueError(f"Weights & Biases takes no {mode} run: {first_line(error)}.") from error


def export_contents(report: "Report", files: Sequence[Path]) -> dict[str, Any]:
    """What the run of a report shows: table, page, and sheets by model."""
    import wandb

    columns = cast("list[str | int]", list(spreadsheet.COLUMNS))
    lines = spreadsheet.lines(report.leaderboards, report.published)
    rows = [[line.get(str(column)) for column in columns] for line in lines]
    table = wandb.Table(columns=columns, data=rows, dtype=list(spreadsheet.COLUMNS.values()), optional=True)
    (page,) = (file for file in files if file.suffix == ".html")
    sheets = {
        f"{re.sub(r'[^A-Za-z0-9_]+', '_', path.stem)}/{row.records[0].job}-{row.records[0].id}": wandb.Image(
            str(path), caption=row.model.label
        )
        for board in report.leaderboards
        for row in board.rows
        for path in report.sheets.get(row.records[0].id, ())
    }
    return {"leaderboard": table, "page": wandb.Html(str(page), inject=False), **sheets}


def build_artifact(report: "Report", files: Sequence[Path], scratch: Path) -> Any:
    """The artifact of a report: the written files, and each record with its sheets."""
    import wandb

    artifact = wandb.Artifact("leaderboard", type="leaderboard")
    for file in files:
        artifact.add_file(str(file), name=file.name)
    for record in report.records:
        artifact.add_file(str(write(record, scratch)), name=f"records/{path_of(scratch, record.job, record.id).name}")
        for sheet in report.sheets.get(record.id, ()):
            artifact.add_file(str(sheet), name=f"records/{record.job}-{record.id}/{sheet.name}")
    return artifact


def run_id(records: Sequence[Record]) -> str:
    """The id of the run of these records, whatever their order."""
    plain = [
        {key: value for key, value in asdict(record).items() if key not in OPTIONAL}
        | {"metrics": {name: list(map(encode, asdict(e).values())) for name, e in record.metrics.items()}}
        for record in records
    ]
    return f"leaderboard-{digest(sorted(map(digest, plain)))[:16]}"


def picture(
    pixels: Any,  # (H, W, 3) uint8, or the path of a file
) -> Any:
    """An image as a run takes it."""
    import wandb

    return wandb.Image(pixels)


def location_of(run: Any, mode: Mode) -> str:
    """A run's address, or its folder."""
    return run.url if mode == "online" else str(Path(run.dir).parent)


def log_location(what: str, location: str, mode: Mode) -> None:
    """Logs where a run is, and how an offline one is uploaded."""
    log.info("%s, %s%s: %s", what, mode, " (wandb sync uploads it)" if mode == "offline" else "", location)


def refusal(reason: str) -> str:
    """The message of an online run that cannot start."""
    reason = reason.rstrip(".").removeprefix("Weights & Biases takes no online run: ")
    return (
        f"Weights & Biases takes no online run: {reason}. "
        f"{login_advice()}, or set logger.offline=true, which needs no account."
    )


def login_advice() -> str:
    """What to do for a login that was refused."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY is set: compare it with https://wandb.ai/authorize, and see whether the network is there"
    return "Set WANDB_API_KEY"


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")


@contextmanager
def no_stdin() -> Iterator[None]:
    """Within it standard input is empty, so that nothing prompts for an answer."""
    stdin = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as empty:
        sys.stdin = empty
        try:
            yield
        finally:
            sys.stdin = stdin
