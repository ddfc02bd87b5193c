"""RunLogger: Lightning's logs to a run that was handed in, along the steps that the tasks count."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger


class RunLogger(Logger):
    """Tells a run all that is logged, at the optimizer step that it belongs to; pictures as pictures of the run itself, in no table."""

    def __init__(self, run: Any, *, picture: Callable[[Any], Any]):
        super().__init__()
        self.run = run
        self.picture = picture  # pixels (H, W, 3) uint8 -> what the run takes

    @property
    def name(self) -> str:
        """What people call the run."""
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
        """Nothing: the run was told its config as it began."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Figures at an optimizer step of all phases. A run that is gone on with keeps what it knows of a step already."""
        self.run.log(dict(metrics), step=step)

    def log_image(self, key: str, images: Sequence[Any], step: int | None = None) -> None:
        """Pictures of (H, W, 3) uint8 each."""
        pictures = [self.picture(pixels) for pixels in images]
        self.run.log({key: pictures[0] if len(pictures) == 1 else pictures}, step=step)
