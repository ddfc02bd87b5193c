"""python -m ldbench.train: trains a tokenizer in all its stages and measures its reconstructions."""

import logging
import os
from typing import TYPE_CHECKING

from ldbench.cli import launch_with_sweeps
from ldbench.config.compose import Registry, cli_overrides
from ldbench.sweeps.watch import NAME

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def run(cfg: "DictConfig", registry: Registry) -> None:
    """Called by Hydra with the composed config."""
    from ldbench.pipeline import pipeline  # imports torch: --help and mistakes need not wait for it
    from ldbench.pipeline.generator_plan import has_generator
    from ldbench.pipeline.next_steps import describe_next_steps

    pipeline.train(cfg, registry)
    if NAME not in os.environ:  # a sweep continues by itself
        log.info("\n%s", "\n".join(describe_next_steps(cli_overrides(), has_generator=has_generator(cfg))))


def main() -> None:
    """Runs the command line."""
    launch_with_sweeps("train", run)


if __name__ == "__main__":
    main()
