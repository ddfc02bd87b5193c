"""The logger `wandb`: trainings and records, each under its own name and id in Weights & Biases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldbench.results.records import Record
from ldbench.tracking import wandb_runs
from ldbench.tracking.run_logger import RunLogger


class Wandb(RunLogger):
    """A training as a run of Weights & Biases, begun, or gone on with after an interruption.

    `entity` is a team, or null; `group` is what the runs of one sweep have in common, or null.
    Raises ValueError, with what to do, where the run cannot begin.
    """

    def __init__(
        self,
        *,
        project: str,
        entity: str | None,
        offline: bool,
        group: str | None,
        save_dir: str,
        training: wandb_runs.Training,
    ):
        run = wandb_runs.begin_training(
            training, project=project, entity=entity, offline=offline, group=group, folder=Path(save_dir)
        )
        super().__init__(run, picture=wandb_runs.picture)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError, before any work begins, where a run could not begin."""
        wandb_runs.check_login(settings["offline"])

    @staticmethod
    def send(settings: Mapping[str, Any], record: Record, sheets: Sequence[Path], *, folder: Path) -> None:
        """A record as a run of its own. `sheets`: PNG files beside it; `folder`: where runs are kept. Raises as the constructor."""
        said = {key: settings[key] for key in ("project", "entity", "offline", "group")}
        wandb_runs.send_record(record, sheets, **said, folder=folder / "records")
