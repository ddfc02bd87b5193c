"""The configured logger outside of training: whether it can start, and the records that it is sent."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from ldbench.config.components import import_target, parameter_names, validate_types
from ldbench.config.compose import plain
from ldbench.config.error_messages import did_you_mean
from ldbench.results import store
from ldbench.results.records import Record, path_of
from ldbench.runtime.process_group import is_worker_rank

log = logging.getLogger(__name__)


def validate_logger(cfg: DictConfig) -> None:
    """Raises ValueError if the configured logger could not start."""
    if cfg.logger and not is_worker_rank():
        logger = import_target(cfg.logger._target_)
        if hasattr(logger, "check"):  # ours; others take keywords that their signature does not list
            known = parameter_names(cfg.logger._target_)
            for key in cfg.logger.keys() - {*known, "_target_"}:
                raise ValueError(f"There is no config key logger.{key}.{did_you_mean(str(key), known)}")
            validate_types(cfg.logger)
            logger.check(plain(cfg.logger))


def send_record(cfg: DictConfig, record: Record) -> None:
    """Sends a record that was just written to the configured logger, if it takes records.

    If that fails, a warning is logged: the record is on disk.
    """
    logger = import_target(cfg.logger._target_) if cfg.logger else None
    if logger is None or not hasattr(logger, "send"):
        return
    folder = Path(cfg.paths.records)
    try:
        logger.send(plain(cfg.logger), record, store.sheets(folder, record), folder=Path(cfg.paths.runs))
    except ValueError as error:
        log.warning(
            "The record is written to %s, but was not sent. %s "
            "python -m ldbench.leaderboard wandb=online (or offline) sends all records later.",
            path_of(folder, record.job, record.id),
            error,
        )
