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


def configured_loggers(cfg: DictConfig) -> list[DictConfig]:
    """The nodes of all loggers of a config."""
    return [node for node in (cfg.get("logger"), *cfg.get("loggers", {}).values()) if node]


def validate_logger(cfg: DictConfig) -> None:
    """Raises ValueError if a configured logger could not start."""
    for node in [] if is_worker_rank() else configured_loggers(cfg):
        logger = import_target(node._target_)
        if hasattr(logger, "check"):  # ours; others take keywords that their signature does not list
            known = parameter_names(node._target_)
            for key in node.keys() - {*known, "_target_"}:
                raise ValueError(f"There is no config key {node._get_full_key(key)}.{did_you_mean(str(key), known)}")
            validate_types(node)
            logger.check(plain(node))


def send_record(cfg: DictConfig, record: Record) -> None:
    """Sends a record that was just written to the configured loggers that take records.

    If that fails, a warning is logged: the record is on disk.
    """
    folder = Path(cfg.paths.records)
    for node in configured_loggers(cfg):
        logger = import_target(node._target_)
        if not hasattr(logger, "send"):
            continue
        try:
            logger.send(plain(node), record, store.sheets(folder, record), folder=Path(cfg.paths.runs))
        except ValueError as error:
            log.warning(
                "The record is written to %s, but was not sent. %s "
                "python -m ldbench.leaderboard wandb=online (or offline) sends all records later.",
                path_of(folder, record.job, record.id),
                error,
            )
