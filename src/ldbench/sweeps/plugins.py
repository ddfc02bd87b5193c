"""Hydra plug-ins: a sweeper that validates all points before the first, and a launcher with a process per point."""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

from ldbench.runtime.process_group import process_info
from ldbench.sweeps import points, processes
from ldbench.sweeps.overrides import first_value
from ldbench.sweeps.schedule import FAILED, Schedule, SweepTask

PREPARE_MODULE = "ldbench.prepare"  # the entry point that builds what points share


class CheckedSweeper(Sweeper):
    """Every combination of the listed values, all validated before any starts, whatever the launcher."""

    inspect: ClassVar["staticmethod[..., points.SweepNeeds]"]
    swept: ClassVar[Sequence[str]] = ()  # the overrides with several values; Hydra itself got the first of each

    def __init__(self, *, params: Mapping[str, Any] | None):
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the sweep."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Launches all combinations of an experiment's lists and the command line's overrides, which take precedence.

        Raises ValueError for any mistake.
        """
        if process_info().world > 1:
            raise ValueError(
                f"A sweep starts its own processes, but {process_info().world} were started for this one. "
                "Start it without torchrun or srun and set trainer.devices=N, or start each point separately."
            )
        assert self.hydra_context is not None, "set up first"
        assert self.config is not None
        assert self.launcher is not None
        originals = {first_value(override): override for override in self.swept}
        overrides = [originals.get(override, override) for override in arguments]
        with flag_override(self.config, ["struct", "readonly"], [False, False]):
            self.config.hydra.overrides.task = overrides
        folder = Path(self.config.hydra.sweep.dir)
        loader = self.hydra_context.config_loader
        batch = combinations([*(f"{key}={value}" for key, value in self.params.items()), *overrides], loader)
        sweep_points = points.build_points(loader, self.config, batch, self.inspect)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        if isinstance(self.launcher, LocalLauncher):
            self.launcher.points = sweep_points
        results = self.launcher.launch(batch, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # re-raises the error of a point
        return results


class LocalLauncher(Launcher):
    """Runs the points of a sweep in processes on this machine, tokenizers first.

    A point that fails is listed with its reason at the end, and the exit status is then 1; the others continue.
    """

    inspect: ClassVar["staticmethod[..., points.SweepNeeds]"]
    entry: ClassVar[str] = "ldbench.train"  # the module of the command line, which Hydra does not pass to launchers

    def __init__(self, *, jobs: int, devices: Sequence[int | str] | None):
        self.jobs = jobs
        self.devices = devices
        self.points: Sequence[points.Point] | None = None  # set by a sweeper that has validated them

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the launch. Raises ValueError for an invalid number of processes."""
        if not isinstance(self.jobs, int) or isinstance(self.jobs, bool) or self.jobs < 1:
            raise ValueError(f"hydra.launcher.jobs must be a whole number of at least 1, got {self.jobs!r}.")
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch of points. Raises ValueError for mistakes before any starts, SystemExit if a point failed."""
        from rich.console import Console  # imported here: mistakes and --help need not wait for it

        from ldbench.sweeps.overview import Overview

        sweep_points = self.points or points.build_points(
            self.hydra_context.config_loader, self.config, job_overrides, self.inspect
        )
        schedule = Schedule.of(sweep_points, initial_job_idx)
        overview = Overview(schedule, Console())
        try:
            with overview:
                folder = Path(self.config.hydra.sweep.dir)
                processes.run(
                    schedule,
                    command=self.command,
                    folder=folder,
                    jobs=self.jobs,
                    devices=self.devices,
                    watcher=overview,
                )
        finally:
            overview.print_summary()
        if schedule.count(FAILED):
            raise SystemExit(1)
        return [JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED) for overrides in job_overrides]

    def command(self, task: SweepTask) -> list[str]:
        """The command line of a task: the overrides of the sweep, with the task's values instead of lists."""
        hydra = self.config.hydra
        own = [override for override in hydra.overrides.hydra if not override.startswith("hydra.mode=")]
        module = PREPARE_MODULE if task.is_shared else self.entry
        return [sys.executable, "-m", module, *flags(hydra), *own, "hydra.mode=RUN", *task.overrides]


def combinations(overrides: Sequence[str], loader: Any) -> list[list[str]]:
    """All combinations of the values of overrides; a later override replaces an earlier one of the same key.

    Raises ValueError for values that cannot be enumerated.
    """
    lists: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            lists[key] = (
                [str(override.input_line)] if override.is_delete() else [f"{key}={override.get_value_element_as_str()}"]
            )
        elif override.is_discrete_sweep():
            lists[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ValueError(f"The values of {override.input_line} cannot be enumerated. List them, as in {key}=A,B.")
    return [list(chosen) for chosen in itertools.product(*lists.values())]


def flags(hydra: Any) -> list[str]:
    """The flags of the sweep's own command line that its processes need as well."""
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return ["--config-name", hydra.job.config_name, *(flag for folder in folders for flag in ("--config-dir", folder))]


def register(module: str, inspect: points.Inspect, swept: Sequence[str]) -> None:
    """Registers both plug-ins with Hydra for an entry point. `swept`: the overrides with several values."""
    for plugin in (CheckedSweeper, LocalLauncher):
        name = f"hydra_plugins.ldbench.{plugin.__name__}"  # Hydra accepts only plug-ins of such names
        Plugins.instance().class_name_to_class[name] = plugin
        plugin.inspect = staticmethod(inspect)
    LocalLauncher.entry = module
    CheckedSweeper.swept = swept
