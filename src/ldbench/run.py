"""python -m ldbench.run: one measurement of a tokenizer, which is trained or imported first if necessary."""

from typing import TYPE_CHECKING

from ldbench.cli import launch_with_sweeps
from ldbench.config.compose import Registry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: "DictConfig", registry: Registry) -> None:
    """Called by Hydra with the composed config."""
    from ldbench.pipeline import pipeline  # imports torch: --help and mistakes need not wait for it

    pipeline.run(cfg, registry)


def main() -> None:
    """Runs the command line."""
    launch_with_sweeps("run", run)


if __name__ == "__main__":
    main()
