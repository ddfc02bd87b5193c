"""Loggers of trainings: RunLogger for Lightning, and the logger `wandb` of the config."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from ldbench.results.records import Record
from ldbench.tracking import wandb_runs


class RunLogger(Logger):
    """Logs to a run that is passed in, at each value's optimizer step; images as images of the run, in no table."""

    def __init__(self, run: Any, *, picture: Callable[[Any], Any]):
        super().__init__()
        self.run = run
        self.picture = picture  # pixels (H, W, 3) uint8 -> what the run takes

    @property
    def name(self) -> str:
        """The run's display name."""
        return str(self.run.name)

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self.run.id)

    @property
    def experiment(self) -> Any:
        """The run."""
        return self.run

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run got its config when it started."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs values at an optimizer step, counted over all phases. A resumed run keeps what it has of a step."""
        self.run.log(dict(metrics), step=step)

    def log_image(self, key: str, images: Sequence[Any], step: int | None = None) -> None:
        """Logs images, (H, W, 3) uint8 each."""
        pictures = [self.picture(pixels) for pixels in images]
        self.run.log({key: pictures[0] if len(pictures) == 1 else pictures}, step=step)


class Wandb(RunLogger):
    """A training as a run of Weights & Biases, which an interrupted training resumes.

    `entity` is a team, or null; `group` is shared by the runs of one sweep, or null.
    Raises ValueError, with what to do, if the run cannot start.
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
        run = wandb_runs.start_training(
            training, project=project, entity=entity, offline=offline, group=group, folder=Path(save_dir)
        )
        super().__init__(run, picture=wandb_runs.picture)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError, before any work starts, if a run could not start."""
        wandb_runs.validate_login(settings["offline"])

    @staticmethod
    def send(settings: Mapping[str, Any], record: Record, sheets: Sequence[Path], *, folder: Path) -> None:
        """Logs a record as a run of its own. `sheets`: PNG files beside it; `folder`: the folder of runs.

        Raises ValueError as the constructor does.
        """
        keywords = {key: settings[key] for key in ("project", "entity", "offline", "group")}
        wandb_runs.send_record(record, sheets, **keywords, folder=folder / "records")
