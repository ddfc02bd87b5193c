"""python -m ldbench.train: trains a tokenizer in all its stages and measures its reconstructions."""

from typing import TYPE_CHECKING

from ldbench.cli import launch_with_sweeps
from ldbench.config.compose import Registry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: "DictConfig", registry: Registry) -> None:
    """Called by Hydra with the composed config."""
    from ldbench.pipeline import pipeline  # imports torch: --help and mistakes need not wait for it

    pipeline.train(cfg, registry)


def main() -> None:
    """Runs the command line."""
    launch_with_sweeps("train", run)


if __name__ == "__main__":
    main()
