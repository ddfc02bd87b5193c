"""python -m ldbench.prepare: builds the artifacts that points of a sweep with one tokenizer share; sweeps start it.

It takes the overrides of one of these points, and `--config-name run` for those of ldbench.run.
"""

from typing import TYPE_CHECKING

from ldbench.cli import launch
from ldbench.config.compose import Registry
from ldbench.sweeps.watch import exit_with_sweep

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: "DictConfig", registry: Registry) -> None:
    """Called by Hydra with the composed config."""
    from ldbench.pipeline import pipeline

    pipeline.prepare(cfg, registry)


def main() -> None:
    """Runs the command line."""
    exit_with_sweep()
    launch("train", run)


if __name__ == "__main__":
    main()
