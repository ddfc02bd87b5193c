"""One measurement over records: from a job's yaml and a folder of records to a record. No model is opened."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ldbench.artifacts.building import building_lock
from ldbench.config.components import import_target, instantiate
from ldbench.config.compose import Registry, plain
from ldbench.pipeline.job_context import requires
from ldbench.pipeline.stored_records import hashed_settings, read_records
from ldbench.pipeline.tokenizer_plan import validate_keys
from ldbench.results import records, reports, terminal
from ldbench.results.predictions import prediction_tables
from ldbench.results.records import merge_directions
from ldbench.results.studies import Study
from ldbench.tracking.send_records import send_record, validate_logger

log = logging.getLogger(__name__)


def compare(cfg: DictConfig) -> Path:
    """Makes the configured measurement of each study that the records hold, and returns their folder.

    Its records have no tokenizer as `subject`; `artifacts` names all, and the id covers the ids of the records used.
    Raises ValueError where there are no records, or too few.
    """
    validate_keys(cfg)
    validate_logger(cfg)
    folder = Path(cfg.paths.records)
    found = read_records(folder)
    if not found:
        raise ValueError(
            f"There are no records in {folder.absolute()}, and this job starts from them. "
            "paths.root=DIR looks elsewhere; "
            "python -m ldbench.train makes the first ones."
        )
    job = import_target(cfg.job._target_)
    with building_lock(folder / job.name, doing="at work on"):  # of two at once, one measures
        made = [compare_one(cfg, job, study) for study in job.studies(found, plain(cfg.job))]
    terminal.show(prediction_tables(made, merge_directions(found)), reports.stdout())
    return folder


def compare_one(cfg: DictConfig, job: Any, study: Study) -> records.Record:
    """The record of one study: read where it is there, else made."""
    settings = {**plain(cfg.job), "target": study.target}
    protocol = study.conditions.protocol
    used = {
        f"tokenizer {place}": name
        for place, name in enumerate(sorted({name for names in study.artifacts.values() for name in names}), 1)
    }
    identity = records.record_id(
        job=job.name,
        settings={key: settings[key] for key in job.settings}
        | {"records": sorted(record.id for record in study.records), "tests": study.num_tests},
        artifacts=used,
        data=protocol["data"],
        protocol=protocol["hash"],
        revision=job.revision,
    )
    folder = Path(cfg.paths.records)
    path = records.path_of(folder, job.name, identity)
    figures = path.with_suffix("")
    if path.is_file() and all((figures / file).exists() for file in job.output_files(settings)) and not cfg.force:
        log.info("Its job %s was measured already (force=true measures again): %s", job.name, path)
        return records.read(path)
    record = records.Record(
        id=identity,
        job=job.name,
        subject={"tokenizer": None, "generator": " ".join(study.quality), "data": study.conditions.data},
        metrics=instantiate({**plain(cfg.job), "target": study.target}, study=study).run(figures),
        protocol=protocol,
        artifacts=used,
        config={"job": Registry().with_component_names(settings)},
        environment=records.environment(),
        created=records.now(),
        higher_is_better={},
        settings=hashed_settings(job, Registry().with_component_names(settings)),
        models={},  # it is of many
        seeds={},
        weights={},
        components={},
    )
    log.info("Measured over %d records: %s", len(study.records), records.write(record, folder))
    log.info("  pictures and tables: %s", figures)
    send_record(cfg, record)
    return record


def refuse_in_training(nodes: Sequence[DictConfig]) -> None:
    """Raises ValueError for a job of `train` that starts from records: it measures none of what was trained."""
    for node in nodes:
        if requires(node, "records"):
            name = import_target(node._target_).name
            raise ValueError(
                f"jobs.{name} starts from records, and not from what is trained here. Say: "
                f"python -m ldbench.run job={name}"
            )
