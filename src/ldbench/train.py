"""python -m ldbench.train: trains a tokenizer, all its stages, and measures what it reconstructs."""

from typing import TYPE_CHECKING

from ldbench.cli import launch_with_sweeps
from ldbench.config.compose import Registry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: "DictConfig", registry: Registry) -> None:
    """What Hydra calls with the composed config."""
    from ldbench.pipeline import pipeline  # torch is loaded here: --help and mistakes need not wait for it

    pipeline.train(cfg, registry)


def main() -> None:
    launch_with_sweeps("train", run)


if __name__ == "__main__":
    main()
