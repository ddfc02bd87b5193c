"""The records of a folder with what they are ranked by; older records get it from the metrics and jobs of the config
groups.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from ldbench.config.components import import_target
from ldbench.config.compose import Registry
from ldbench.results import store
from ldbench.results.ranking_conditions import job_config
from ldbench.results.records import Record


def read_records(folder: Path, registry: Registry = Registry()) -> list[Record]:
    """Every record of a folder, oldest first, each with `higher_is_better` and `settings`. No model is opened."""
    return [with_ranking(record, registry) for record in store.read_all(folder)]


def with_ranking(record: Record, registry: Registry = Registry()) -> Record:
    """The record with `higher_is_better` and `settings`: its own, else those of the classes that are known here."""
    if record.higher_is_better is None:
        extractor = record.protocol.get("extractor")
        label = extractor.get("name") if isinstance(extractor, Mapping) else None
        known = known_directions(label if isinstance(label, str) else None, registry)
        record = replace(record, higher_is_better={name: known[name] for name in record.metrics if name in known})
    if record.settings is None and record.job in (jobs := known_jobs(registry)):
        record = replace(record, settings=hashed_settings(jobs[record.job], job_config(record)))
    return record


def hashed_settings(job: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a job that its numbers depend on, without those at the value from before the setting existed."""
    plain = getattr(job, "plain", {})
    return {
        key: settings[key]
        for key in job.settings
        if key in settings and (key not in plain or settings[key] != plain[key])
    }


@lru_cache(maxsize=64)
def known_directions(label: str | None, registry: Registry) -> dict[str, bool]:
    """Whether larger values are better, of each figure that a metric or a job of the config groups ranks.

    `label`: the extractor's name.
    """
    from ldbench.jobs._set_metrics import ranked, set_metric_name  # torch takes seconds to load

    metrics = {name: import_target(target) for name, target in registry.targets("metric").items()}
    for key, target in registry.targets("distribution").items():
        metric = import_target(target)
        prefixes: tuple[Literal["r", "g"], ...] = ("r", "g")
        for prefix, standard, suffix in product(prefixes, (True, False), getattr(metric, "suffixes", ("",))):
            metrics[set_metric_name(f"{key}{suffix}", prefix, label=label, standard=standard)] = metric
    directions = ranked(metrics)
    for job in known_jobs(registry).values():
        directions |= getattr(job, "higher_is_better", {})
    return directions


@lru_cache(maxsize=64)
def known_jobs(registry: Registry) -> dict[str, Any]:
    """The jobs of the config group, by the name in their records."""
    jobs = map(import_target, registry.targets("job").values())
    return {job.name: job for job in jobs}
