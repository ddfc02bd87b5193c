"""Trainings and records as runs of Weights & Biases: one run each.

A training is the same run after an interruption, its figures summed up as they are meant. A record is a run whose summary holds its numbers.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ldbench.results.records import Record
from ldbench.tracking.wandb_export import begin, finish, first_line, quietly

log = logging.getLogger(__name__)

MODES = ("disabled", "offline", "online")  # what tells others less comes first
SETTINGS = {"disable_git": True, "disable_code": True}
SUMMARIES = {  # what a run's summary holds of a figure; the first that fits counts
    **dict.fromkeys(("train/lr", "train/images_seen", "train/batch"), "last"),
    "train/grad_norm": "max,last",
    "train/*": "min,last",
    "heldout/*": "last",
}


@dataclass(frozen=True)
class Training:
    """What there is to tell of a training: it is named by what is trained, and known by the digest of what will come of it."""

    kind: Literal["tokenizer", "generator"]
    artifact: str  # the name of what will come of it
    digest: str
    names: tuple[str, ...]  # for people: of the tokenizer, of the generator where one is trained, of the data
    config: Mapping[str, Any]  # plain

    @property
    def name(self) -> str:
        """What people see: `tokenizer__generator__data-digest`."""
        return f"{'__'.join(self.names)}-{self.digest[:8]}"

    @property
    def id(self) -> str:
        """The run's id: the same for the same artifact."""
        return f"{self.kind}-{self.digest[:16]}"


def mode_of(offline: bool) -> str:
    """Whether runs are online, offline or disabled: what the config or WANDB_MODE says, and of two that differ what tells others less.

    Raises ValueError for a WANDB_MODE that does not exist.
    """
    given, said = os.environ.get("WANDB_MODE", ""), "offline" if offline else "online"
    known = {"": said, "dryrun": "offline", "run": "online", "shared": "online", **{mode: mode for mode in MODES}}
    if given not in known:
        raise ValueError(
            f"WANDB_MODE must be one of {', '.join(MODES)}, got {given!r}. Unset it, or give one of these."
        )
    return min(said, known[given], key=MODES.index)


def check_login(offline: bool) -> None:
    """Raises ValueError, with what to do, where runs are to be online and Weights & Biases lets nobody in. Asks nobody anything."""
    if mode_of(offline) != "online":
        return
    import wandb

    with quietly():
        try:
            entered = wandb.login(verify=True)
        except Exception as error:  # no key, a wrong one, no server: its errors have no common class
            wandb.teardown()  # else this process would remember
            raise ValueError(refusal(first_line(error))) from error
    if not entered:
        raise ValueError(refusal("nobody is logged in"))


def begin_training(
    training: Training, *, project: str, entity: str | None, offline: bool, group: str | None, folder: Path
) -> Any:
    """The run of a training, begun or gone on with. Raises ValueError, with what to do, where Weights & Biases does not let it begin."""
    told = {**training.config, "artifact": {"name": training.artifact, "digest": training.digest}}
    said = {
        "project": project,
        "entity": entity,
        "id": training.id,
        "name": training.name,
        "job_type": training.kind,
        "group": group,
    }
    run = begin_run(offline, folder, config=told, allow_val_change=True, **said)
    for figure, summary in SUMMARIES.items():
        run.define_metric(figure, summary=summary)
    if run.resumed and run.step:
        log.info(
            "That run knows this training up to step %d already: what comes again is not sent again.", run.step - 1
        )
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
    """Makes the run of a record: job type its job, in its summary the numbers with the ends of their intervals, its sheets as pictures.

    What it was measured of, the protocol and the config stand in the run's config. Raises ValueError as `begin_training`.
    """
    names = [name for key in ("tokenizer", "generator", "data") if (name := record.subject[key])]
    told = {
        **record.config,
        "subject": dict(record.subject),
        "protocol": dict(record.protocol),
        "artifacts": dict(record.artifacts),
    }
    said = {
        "project": project,
        "entity": entity,
        "id": f"{record.job}-{record.id}",
        "name": f"{'__'.join(names)}-{record.id[:8]}",
    }
    try:
        run = begin_run(offline, folder, config=told, allow_val_change=True, job_type=record.job, group=group, **said)
        ends = {"": "value", "_low": "low", "_high": "high"}
        values = {
            name + end: getattr(estimate, key) for name, estimate in record.metrics.items() for end, key in ends.items()
        }
        run.summary.update({name: value for name, value in values.items() if value is not None})
        if sheets:
            run.log({sheet.stem: picture(str(sheet)) for sheet in sheets})
    finally:
        finish()


def begin_run(offline: bool, folder: Path, **said: Any) -> Any:
    """A run, begun or gone on with, and where it is said. Raises ValueError, with what to do, where Weights & Biases does not let it begin."""
    mode = mode_of(offline)
    try:
        run = begin(mode=mode, folder=folder, settings=SETTINGS, **said)
    except ValueError as error:
        if mode == "online":
            raise ValueError(refusal(str(error))) from error
        raise
    if mode != "disabled":
        where = run.url if mode == "online" else str(Path(run.dir).parent)
        log.info("Weights & Biases, %s%s: %s", mode, " (wandb sync uploads it)" if mode == "offline" else "", where)
    return run


def picture(
    pixels: Any,  # (H, W, 3) uint8, or the path of a file
) -> Any:
    """A picture as a run takes it."""
    import wandb

    return wandb.Image(pixels)


def refusal(reason: str) -> str:
    """What is said where there can be no online run."""
    reason = reason.rstrip(".").removeprefix("Weights & Biases takes no online run: ")
    return f"Weights & Biases takes no online run: {reason}. Set WANDB_API_KEY, or say logger.offline=true, which needs no account."
