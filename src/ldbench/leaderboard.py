"""python -m ldbench.leaderboard: tables of records, and one page that holds everything; no model is opened."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ldbench.cli import launch
from ldbench.config.compose import Registry, conf_dir

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def run(cfg: "DictConfig", registry: Registry) -> None:
    """What Hydra calls with the composed config."""
    from ldbench.pipeline.stored_records import read_records
    from ldbench.results import reports, store

    check(cfg)
    folder = Path(cfg.paths.records)
    if cfg.merge is not None:
        new = store.merge(Path(cfg.merge), folder)
        log.info("Merged %d new record%s of %s into %s.", len(new), "" if len(new) == 1 else "s", cfg.merge, folder)
    found = read_records(folder, registry)
    if not found:
        raise ValueError(
            f"There are no records in {folder.absolute()}. python -m ldbench.train makes the first ones; paths.root=DIR looks elsewhere."
        )
    if cfg.compare is not None:
        reports.compare_two(found, *cfg.compare)
    elif cfg.rank is not None:
        reports.rank_by(found, cfg.rank, cfg.only)
    else:
        report = reports.make_report(found, folder, conf_dir() / "experiments" / "published", cfg.published)
        report.show()
        files = report.write(Path(cfg.out))
        log.info("\nWritten: %s", ", ".join(map(str, files)))
        if cfg.wandb is not None:
            from ldbench.tracking import wandb_runs

            wandb_runs.export(report, files, mode=cfg.wandb, project=cfg.project, folder=Path(cfg.paths.runs))


def check(cfg: "DictConfig") -> None:
    """Raises ValueError for what cannot be meant, before any file is read."""
    for key, choices in (("published", ("beside", "all", "none")), ("wandb", (None, "offline", "online"))):
        if cfg[key] not in choices:
            told = ", ".join("null" if choice is None else choice for choice in choices)
            raise ValueError(f"{key} must be one of {told}, got {cfg[key]!r}.")
    if cfg.compare is not None and (isinstance(cfg.compare, str) or len(cfg.compare) != 2):
        raise ValueError(f"compare takes two records, as in compare=[A,B]; got {cfg.compare}.")
    if cfg.only is not None and cfg.rank is None:
        raise ValueError("only=[...] says which records rank=METRIC takes. Name a metric, as in rank=psnr.")
    if cfg.compare is not None and cfg.rank is not None:
        raise ValueError("compare and rank are two questions. Ask one at a time.")


def main() -> None:
    launch("leaderboard", run)


if __name__ == "__main__":
    main()
