"""python -m ldbench.prepare: makes what the points of a sweep share that need one tokenizer; sweeps start it.

It takes the words of one of them, and `--config-name run` where they are of ldbench.run.
"""

from typing import TYPE_CHECKING

from ldbench.cli import launch
from ldbench.config.compose import Registry
from ldbench.sweeps.watch import end_with_the_sweep

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: "DictConfig", registry: Registry) -> None:
    """What Hydra calls with the composed config."""
    from ldbench.pipeline import pipeline

    pipeline.prepare(cfg, registry)


def main() -> None:
    end_with_the_sweep()
    launch("train", run)


if __name__ == "__main__":
    main()
