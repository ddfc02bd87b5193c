"""The configured logger, as far as it is told of more than trainings: whether it could begin at all, and what was measured."""

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


def check_logger(cfg: DictConfig) -> None:
    """Raises ValueError where the configured logger says that it could not begin."""
    if cfg.logger and not is_worker_rank():
        logger = import_target(cfg.logger._target_)
        if hasattr(logger, "check"):  # ours: others take keys that no signature tells
            known = parameter_names(cfg.logger._target_)
            for key in cfg.logger.keys() - {*known, "_target_"}:
                raise ValueError(f"There is no config key logger.{key}.{did_you_mean(str(key), known)}")
            validate_types(cfg.logger)
            logger.check(plain(cfg.logger))


def send_record(cfg: DictConfig, record: Record) -> None:
    """Tells the configured logger of a record that was just written, if it takes records. Where it cannot, that is said: the record stands."""
    logger = import_target(cfg.logger._target_) if cfg.logger else None
    if not hasattr(logger, "send"):
        return
    folder = Path(cfg.paths.records)
    try:
        logger.send(plain(cfg.logger), record, store.sheets(folder, record), folder=Path(cfg.paths.runs))
    except ValueError as error:
        told = "python -m ldbench.leaderboard wandb=online (or offline) sends all records later"
        log.warning(
            "The record stands in %s, but was not sent. %s %s.", path_of(folder, record.job, record.id), error, told
        )
