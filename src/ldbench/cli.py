"""How every entry point handles its command line: Hydra composes the config, and mistakes print a short message."""

import io
import logging
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

from ldbench.config import installed
from ldbench.config.command_line import prepare_overrides
from ldbench.config.compose import Registry, conf_dir
from ldbench.config.error_messages import error_message, worker_failure
from ldbench.sweeps import plugins
from ldbench.sweeps.overrides import split_sweep_overrides
from ldbench.sweeps.points import SLURM_LAUNCHER, SweepNeeds
from ldbench.sweeps.watch import exit_with_sweep


def launch(config_name: str, task: Callable[[DictConfig, Registry], None]) -> None:
    """Runs an entry point: Hydra composes `config_name` from the command line; `task` gets it with the registry.

    A mistake in a config is printed without its traceback; HYDRA_FULL_ERROR=1 shows the traceback.
    """
    prepare_output()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else DDP warns that it found no unused parameters
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ and "LDBENCH_SHORT_ERRORS" not in os.environ
    if not wants_traceback:
        # Hydra then raises errors instead of printing them, in this process and its children
        os.environ["HYDRA_FULL_ERROR"] = os.environ["LDBENCH_SHORT_ERRORS"] = "1"

    def run(cfg: DictConfig) -> None:
        validate_sweep_devices(HydraConfig.get(), cfg)
        registry = Registry.from_sources(HydraConfig.get().runtime.config_sources)
        registry.validate_protocol(HydraConfig.get().runtime.choices)
        task(cfg, registry.with_data(cfg))

    try:
        sys.argv[1:] = with_plugins(sys.argv[1:])
        Registry(tuple(searchpath_overrides(sys.argv[1:]))).validate_folders()
        sys.argv[1:] = prepare_overrides(sys.argv[1:], conf_dir())
        try:
            hydra.main(config_path=str(conf_dir()), config_name=config_name, version_base="1.3")(run)()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nInterrupted. The same command resumes from the last checkpoint.", file=sys.stderr)
        sys.exit(130)
    except (
        HydraException,
        OmegaConfBaseException,
        ValueError,
        ArithmeticError,
        OSError,
        RuntimeError,
        EOFError,
    ) as error:
        if isinstance(error, RuntimeError | EOFError) and worker_failure(error) is None:
            raise
        if isinstance(error, BrokenPipeError) and output_is_closed():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout when it exits
            sys.exit(128 + signal.SIGPIPE)
        if wants_traceback:
            raise
        message = error_message(error, config_name, sys.argv[1:], Registry().compose)
        print(f"\n{message}\n\n(HYDRA_FULL_ERROR=1 shows the traceback.)", file=sys.stderr)
        sys.exit(2)


def prepare_output() -> None:
    """Lets the terminal's encoding escape what it lacks, such as marks of ranks or bytes of a file's name; lines that
    are logged after the reader has gone, as `head` goes, are dropped without a traceback.
    """
    logging.raiseExceptions = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def launch_with_sweeps(config_name: str, task: Callable[[DictConfig, Registry], None]) -> None:
    """Runs an entry point, see `launch`, that also accepts sweeps, and that a sweep may start."""
    exit_with_sweep()
    sys.argv[1:], swept = split_sweep_overrides(sys.argv[1:])
    plugins.register(f"ldbench.{config_name}", sweep_needs, swept)
    launch(config_name, task)


def sweep_needs(cfg: DictConfig, registry: Registry, known: dict[str, Any]) -> SweepNeeds:
    """The shared artifacts that a point of a sweep needs, see `pipeline.sweep_needs.inspect`."""
    from ldbench.pipeline.sweep_needs import inspect  # imports torch: mistakes in overrides need not wait for it

    return inspect(cfg, registry, known)


def validate_sweep_devices(hydra: Any, cfg: DictConfig) -> None:
    """Raises ValueError if several processes share a training at a point of a sweep, unless SLURM starts them all."""
    if hydra.mode != RunMode.MULTIRUN or hydra.launcher._target_.endswith(SLURM_LAUNCHER):
        return
    if OmegaConf.select(cfg, "trainer.devices", default=1) != 1:
        raise ValueError(
            "This launcher runs a sweep's points in its own processes: further processes that share a training would "
            "start the sweep again. Set trainer.devices=1, or hydra/launcher=local."
        )


def output_is_closed() -> bool:
    """Whether the reader of standard output has closed it, as `head` does."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def with_plugins(arguments: Sequence[str]) -> list[str]:
    """A command line whose search path also has the config folders of the installed plug-ins that it leaves on."""
    OmegaConf.register_new_resolver("ldbench_plugins", installed.describe, replace=True)
    given = searchpath_overrides(arguments)
    whole = installed.with_folders(given, arguments)
    if len(whole) == len(given):
        return list(arguments)
    others = [text for text in arguments if not text.lstrip("+").startswith("hydra.searchpath=")]
    flagged = [folder for folder in given if folder in arguments]  # by --config-dir, which Hydra reads itself
    listed = ",".join(folder for folder in whole if folder not in flagged)
    return [*others, f"hydra.searchpath=[{listed}]"]


def searchpath_overrides(arguments: Sequence[str]) -> list[str]:
    """The folders that a command line adds to the search path."""
    lists = [text.partition("=")[2] for text in arguments if text.lstrip("+").startswith("hydra.searchpath=")]
    folders = [entry.strip(" '\"") for values in lists for entry in values.strip("[]").split(",") if entry]
    flags = ("--config-dir", "-cd")
    return folders + [arguments[index + 1] for index, text in enumerate(arguments[:-1]) if text in flags]
