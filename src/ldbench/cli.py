"""What every entry point does with its command line: Hydra composes it, a mistake is told in a sentence, an interruption in a line."""

import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldbench.config.compose import Registry, conf_dir
from ldbench.config.error_messages import error_message
from ldbench.sweeps import plugins
from ldbench.sweeps.overrides import split_sweep_overrides
from ldbench.sweeps.points import SLURM_LAUNCHER, SweepNeeds
from ldbench.sweeps.watch import end_with_the_sweep


def launch(config_name: str, task: Callable[[DictConfig, Registry], None]) -> None:
    """Runs an entry point: Hydra composes `config_name` from the command line and hands it to `task` with the user's search path.

    What is wrong in a config is told in one screen; HYDRA_FULL_ERROR=1 shows the traceback.
    """
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ and "LDBENCH_SHORT_ERRORS" not in os.environ
    if not wants_traceback:
        os.environ["HYDRA_FULL_ERROR"] = os.environ["LDBENCH_SHORT_ERRORS"] = (
            "1"  # errors reach us whole, in this process and its children
        )

    def run(cfg: DictConfig) -> None:
        check_sharing(HydraConfig.get(), cfg)
        registry = Registry.from_sources(HydraConfig.get().runtime.config_sources)
        registry.validate_protocol(HydraConfig.get().runtime.choices)
        task(cfg, registry)

    try:
        Registry(tuple(searchpath_overrides(sys.argv[1:]))).validate_folders()
        try:
            hydra.main(config_path=str(conf_dir()), config_name=config_name, version_base="1.3")(run)()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)
    except (HydraException, OmegaConfBaseException, ValueError, ArithmeticError, OSError) as error:
        if isinstance(error, BrokenPipeError) and output_is_closed():
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # where Python writes what is left, when it ends
            sys.exit(128 + signal.SIGPIPE)
        if wants_traceback:
            raise
        print(
            f"\n{error_message(error, config_name, sys.argv[1:], Registry().compose)}\n\n(HYDRA_FULL_ERROR=1 shows where this was found.)",
            file=sys.stderr,
        )
        sys.exit(2)


def launch_with_sweeps(config_name: str, task: Callable[[DictConfig, Registry], None]) -> None:
    """Runs an entry point, see `launch`, which may also be asked for a sweep, or be started by one."""
    end_with_the_sweep()
    sys.argv[1:], swept = split_sweep_overrides(sys.argv[1:])
    plugins.register(f"ldbench.{config_name}", sweep_needs, swept)
    launch(config_name, task)


def sweep_needs(cfg: DictConfig, registry: Registry, known: dict[str, Any]) -> SweepNeeds:
    """What a point of a sweep needs, see `pipeline.sweep_needs.inspect`."""
    from ldbench.pipeline.sweep_needs import inspect  # torch is loaded here: mistakes in overrides need not wait for it

    return inspect(cfg, registry, known)


def check_sharing(hydra: DictConfig, cfg: DictConfig) -> None:
    """Raises ValueError for a training that several processes share at a point of a sweep, unless SLURM starts them all."""
    if hydra.mode != RunMode.MULTIRUN or hydra.launcher._target_.endswith(SLURM_LAUNCHER):
        return
    if OmegaConf.select(cfg, "trainer.devices", default=1) != 1:
        raise ValueError(
            "This launcher runs a sweep's points in processes of its own: others that share a training would begin the sweep anew. "
            "Say trainer.devices=1, or hydra/launcher=local."
        )


def output_is_closed() -> bool:
    """Whether whoever read what is printed here has gone, as `head` does."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def searchpath_overrides(words: Sequence[str]) -> list[str]:
    """The folders that a command line adds to the search path."""
    lists = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("hydra.searchpath=")]
    after = [words[place + 1] for place, word in enumerate(words[:-1]) if word in ("--config-dir", "-cd")]
    return [entry.strip(" '\"") for told in lists for entry in told.strip("[]").split(",") if entry] + after
