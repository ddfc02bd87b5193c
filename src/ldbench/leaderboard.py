"""python -m ldbench.leaderboard: tables of records, a page, sheets of images, records of others; loads no model."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ldbench.cli import launch
from ldbench.config.compose import Registry, conf_dir

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ldbench.results.records import Record

log = logging.getLogger(__name__)

CHOICES = {
    "published": ("beside", "all", "none"),
    "wandb": (None, "offline", "online"),
    "export": (None, "space"),
    "sheet": (None, "reconstructions", "samples"),
}


def run(cfg: "DictConfig", registry: Registry) -> None:
    """Called by Hydra with the composed config."""
    validate_config(cfg)
    if cfg.validate is not None:
        return validate_records(cfg.validate)
    from ldbench.pipeline.stored_records import read_records
    from ldbench.results import reports
    from ldbench.results.image_comparison import SheetSettings
    from ldbench.results.space import validate_space

    images = SheetSettings(rows=cfg.rows, candidates=cfg.candidates, crop=cfg.crop)
    folder = Path(cfg.paths.records)
    if cfg.merge is not None:
        merge_records(cfg.merge, folder)
    if cfg.export is not None:
        validate_space(Path(cfg.space))
    records = read_records(folder, registry)
    if not records:
        raise ValueError(
            f"There are no records in {folder.absolute()}. "
            "Run python -m ldbench.train for the first ones, or set paths.root=DIR to another folder."
        )
    if cfg.push is not None:
        push_records(records, folder, cfg.only, cfg.push)
    elif cfg.compare is not None:
        reports.compare_two(records, *cfg.compare)
    elif cfg.rank is not None:
        reports.rank_by(records, folder, cfg.rank, cfg.only)
    elif cfg.sheet is not None:
        files = reports.write_sheets(records, folder, writable_folder(cfg), cfg.sheet, cfg.only, images)
        log.info("Written: %s", ", ".join(map(str, files)))
    else:
        papers = conf_dir() / "experiments" / "published"
        report = reports.build_report(records, folder, papers, cfg.published, images)
        if cfg.export is not None:
            report.write_space(Path(cfg.space), folder)
            log.info("Written: %s, a static folder for a Hugging Face Space or GitHub Pages", cfg.space)
            return
        report.show()
        files = report.write(writable_folder(cfg))
        log.info("\nWritten: %s", ", ".join(map(str, files)))
        if cfg.wandb is not None:
            from ldbench.tracking import wandb_runs

            wandb_runs.export(report, files, mode=cfg.wandb, project=cfg.project, folder=Path(cfg.paths.runs))


def validate_records(place: str) -> None:
    """Prints a line for each fault of the records in a folder or in a repository on the hub, and the verdict; with a
    fault the exit status is 1.
    """
    from ldbench.results.validator import validate_folder

    if place.startswith("hf://"):
        from ldbench.artifacts import record_repositories

        with record_repositories.fetched(place) as copy:
            verdict, where = validate_folder(copy.folder, copy.origin), f"{copy.origin}: "
    else:
        verdict, where = validate_folder(Path(place), place), ""
    for fault in verdict.faults:
        log.info("%s", fault)
    log.info("%s%s", where, verdict.summary)
    if verdict.faults:
        raise SystemExit(1)


def merge_records(place: str, folder: Path) -> None:
    """Copies the records in another folder, or in a repository on the hub, to a folder."""
    if place.startswith("hf://"):
        from ldbench.artifacts import record_repositories

        new, origin = record_repositories.merge(place, folder)
    else:
        from ldbench.results import store

        new, origin = store.merge(Path(place), folder), place
    log.info("Merged %d new record%s of %s into %s.", len(new), "" if len(new) == 1 else "s", origin, folder)


def push_records(records: "Sequence[Record]", folder: Path, only: Sequence[object] | None, place: str) -> None:
    """Sends records of a folder, or those of them that `only` names, to a repository on the hub for review."""
    from ldbench.artifacts import record_repositories
    from ldbench.results.comparison import find_record

    chosen = records if only is None else [find_record(records, name) for name in only]
    proposal = record_repositories.propose(chosen, folder, place)
    for count, reason in ((proposal.num_there, "it has already"), (proposal.num_open, "your open pull requests have")):
        if count:
            log.info("Not sent: %d that %s.", count, reason)
    if proposal.url is None:
        log.info("Nothing was sent to %s.", place)
    else:
        count = len(proposal.sent)
        log.info("Sent %d record%s for review: %s", count, "" if count == 1 else "s", proposal.url)


def writable_folder(cfg: "DictConfig") -> Path:
    """Where the tables are written: `out`, or the working directory if `out` is not set and the root is read-only."""
    out = Path(cfg.out)
    if out != Path(cfg.paths.root) or os.access(out, os.W_OK) or not os.access(Path.cwd(), os.W_OK):
        return out
    log.warning("%s cannot be written: the tables are in the working directory. out=DIR chooses another.", out)
    return Path.cwd()


def validate_config(cfg: "DictConfig") -> None:
    """Raises ValueError for invalid settings, before any file is read."""
    for key, choices in CHOICES.items():
        if cfg[key] not in choices:
            known = ", ".join("null" if choice is None else choice for choice in choices)
            raise ValueError(f"{key} must be one of {known}, got {cfg[key]!r}.")
    if cfg.compare is not None and (isinstance(cfg.compare, str) or len(cfg.compare) != 2):
        raise ValueError(f"compare takes two records, as in compare=[A,B]; got {cfg.compare}.")
    asked = [key for key in ("compare", "rank", "sheet", "validate", "push", "export") if cfg[key] is not None]
    if len(asked) > 1:
        raise ValueError(f"{' and '.join(asked)} exclude each other. Set one at a time.")
    if cfg.only is not None and asked not in (["rank"], ["sheet"], ["push"]):
        raise ValueError(
            "only=[...] selects the records of rank=METRIC, of sheet=KIND or of push=REPOSITORY. Name a metric, as in "
            "rank=psnr, or the images, as in sheet=reconstructions, or a repository."
        )
    if cfg.only is not None and (isinstance(cfg.only, str) or not cfg.only):
        raise ValueError(f"only takes a list of records, as in only=[A,B]; got {cfg.only}.")
    if cfg.crop is not None and cfg.sheet != "reconstructions":
        raise ValueError("crop chooses a part of the images of sheet=reconstructions. Add that, or leave crop out.")


def main() -> None:
    """Runs the command line."""
    launch("leaderboard", run)


if __name__ == "__main__":
    main()
