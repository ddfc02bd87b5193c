"""The records of a folder with what they are ranked by: for records without these fields, as the metrics and jobs of the config groups say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ldbench.config import compose as config
from ldbench.results import store
from ldbench.results.ranking_conditions import job_config
from ldbench.results.records import Record


def read_records(folder: Path, searchpath: Sequence[str] = ()) -> list[Record]:
    """Every record of a folder, oldest first, each with `higher_is_better` and `settings`. No model is opened."""
    return [with_ranking(record, searchpath) for record in store.read_all(folder)]


def with_ranking(record: Record, searchpath: Sequence[str] = ()) -> Record:
    """The record with `higher_is_better` and `settings`: its own, else those of the classes that are known here."""
    if record.higher_is_better is None:
        extractor = record.protocol.get("extractor")
        label = extractor.get("name") if isinstance(extractor, Mapping) else None
        known = known_directions(label if isinstance(label, str) else None, tuple(searchpath))
        record = replace(record, higher_is_better={name: known[name] for name in record.metrics if name in known})
    if record.settings is None and record.job in (jobs := known_jobs(tuple(searchpath))):
        record = replace(record, settings=hashed_settings(jobs[record.job], job_config(record)))
    return record


def hashed_settings(job: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a job that its numbers depend on, but for those that are as they were before there was a choice."""
    plain = getattr(job, "plain", {})
    return {
        key: settings[key]
        for key in job.settings
        if key in settings and (key not in plain or settings[key] != plain[key])
    }


@lru_cache(maxsize=64)
def known_directions(label: str | None, searchpath: tuple[str, ...]) -> dict[str, bool]:
    """Whether larger values are better, of each figure that a metric or a job of the config groups ranks. `label`: of the extractor."""
    from ldbench.jobs._set_metrics import ranked, set_metric_name  # torch takes seconds to load

    metrics = {name: config.find(target) for name, target in config.targets("metric", searchpath).items()}
    for key, target in config.targets("distribution", searchpath).items():
        for prefix in ("r", "g"):
            for standard in (True, False):
                name = set_metric_name(key, prefix, label=label, standard=standard)
                metrics[name] = config.find(target)
    directions = ranked(metrics)
    for job in known_jobs(searchpath).values():
        directions |= getattr(job, "higher_is_better", {})
    return directions


@lru_cache(maxsize=64)
def known_jobs(searchpath: tuple[str, ...]) -> dict[str, Any]:
    """The jobs of the config group, by the name in their records."""
    jobs = map(config.find, config.targets("job", searchpath).values())
    return {job.name: job for job in jobs}
