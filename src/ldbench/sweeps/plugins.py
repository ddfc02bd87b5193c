"""What Hydra is told of sweeps: a sweeper that checks all points before the first, and a launcher that runs each in a process of its own."""

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

FIRST = "ldbench.prepare"  # the entry point that makes what points share


class CheckedSweeper(Sweeper):
    """Every combination of the values that are listed, all checked before any begins, whatever launches them."""

    inspect: ClassVar[points.Inspect]
    swept: ClassVar[
        Sequence[str]
    ] = ()  # the words of the command line that name several values; Hydra was told the first of each

    def __init__(self, *, params: Mapping[str, Any] | None):
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over before it sweeps."""
        self.hydra_context = hydra_context
        self.config = config
        given = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
        self.launcher = Plugins.instance().instantiate_launcher(**given)

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Launches all combinations of an experiment's lists and the command line's words, which win. Raises ValueError for any mistake."""
        if process_info().world > 1:
            raise ValueError(
                f"A sweep starts processes of its own, and {process_info().world} were started for this one. Leave torchrun or srun away, "
                "and say trainer.devices=N; or start each point by itself."
            )
        lists = {first_value(word): word for word in self.swept}
        words = [lists.get(word, word) for word in arguments]
        with flag_override(self.config, ["struct", "readonly"], [False, False]):
            self.config.hydra.overrides.task = words
        folder = Path(self.config.hydra.sweep.dir)
        loader = self.hydra_context.config_loader
        batch = combinations([*(f"{key}={value}" for key, value in self.params.items()), *words], loader)
        found = points.checked(loader, self.config, batch, self.inspect)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        if isinstance(self.launcher, LocalLauncher):
            self.launcher.points = found
        results = self.launcher.launch(batch, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises what a point raised
        return results


class LocalLauncher(Launcher):
    """The points of a sweep in processes on this machine, tokenizers first.

    A point that fails is told with its reason in the end, and the exit status is 1 then; the others go on.
    """

    inspect: ClassVar[points.Inspect]
    entry: ClassVar[str] = (
        "ldbench.train"  # the module of the command line; Hydra makes launchers, and hands over no word of it
    )

    def __init__(self, *, jobs: int, devices: Sequence[int | str] | None):
        self.jobs = jobs
        self.devices = devices
        self.points: Sequence[points.Point] | None = None  # by a sweeper that has checked them

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands over before it launches. Raises ValueError for a number of processes that is none."""
        if not isinstance(self.jobs, int) or isinstance(self.jobs, bool) or self.jobs < 1:
            raise ValueError(f"hydra.launcher.jobs must be a whole number of at least 1, got {self.jobs!r}.")
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch of points. Raises ValueError for mistakes, before any begins, and SystemExit where a point failed."""
        from rich.console import Console  # what draws is loaded here: mistakes and --help need not wait for it

        from ldbench.sweeps.overview import Overview

        found = self.points or points.checked(
            self.hydra_context.config_loader, self.config, job_overrides, self.inspect
        )
        waves = Schedule.of(found, initial_job_idx)
        overview = Overview(waves, Console())
        try:
            with overview:
                folder = Path(self.config.hydra.sweep.dir)
                processes.run(
                    waves, command=self.command, folder=folder, jobs=self.jobs, devices=self.devices, watcher=overview
                )
        finally:
            overview.tell()
        if waves.count(FAILED):
            raise SystemExit(1)
        return [JobReturn(overrides=list(words), status=JobStatus.COMPLETED) for words in job_overrides]

    def command(self, step: SweepTask) -> list[str]:
        """The command line of a step: the words of the sweep, with the step's values in place of lists."""
        hydra = self.config.hydra
        own = [word for word in hydra.overrides.hydra if not word.startswith("hydra.mode=")]
        module = FIRST if step.is_first else self.entry
        return [sys.executable, "-m", module, *flags(hydra), *own, "hydra.mode=RUN", *step.overrides]


def combinations(words: Sequence[str], loader: Any) -> list[list[str]]:
    """All combinations of the values of words, of which a later one takes the place of an earlier one of the same key.

    Raises ValueError for values that cannot be counted.
    """
    lists: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(words)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            lists[key] = (
                [override.input_line] if override.is_delete() else [f"{key}={override.get_value_element_as_str()}"]
            )
        elif override.is_discrete_sweep():
            lists[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ValueError(f"{override.input_line} names no values that can be counted. List them, as in {key}=A,B.")
    return [list(words) for words in itertools.product(*lists.values())]


def flags(hydra: Any) -> list[str]:
    """The flags of the sweep's own command line that its processes need too."""
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return ["--config-name", hydra.job.config_name, *(word for folder in folders for word in ("--config-dir", folder))]


def register(module: str, inspect: points.Inspect, swept: Sequence[str]) -> None:
    """Registers both plug-ins with Hydra for an entry point. `swept`: the overrides of the command line that name several values."""
    for plugin in (CheckedSweeper, LocalLauncher):
        Plugins.instance().class_name_to_class[f"hydra_plugins.ldbench.{plugin.__name__}"] = (
            plugin  # Hydra takes plugins under such names only
        )
        plugin.inspect = staticmethod(inspect)
    LocalLauncher.entry = module
    CheckedSweeper.swept = swept
