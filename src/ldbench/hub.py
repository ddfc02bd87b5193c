"""python -m ldbench.hub: puts an artifact on the Hugging Face hub, with a card of what was measured of it."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ldbench.cli import launch
from ldbench.config.compose import Registry

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def run(cfg: "DictConfig", registry: Registry) -> None:
    """What Hydra calls with the composed config."""
    for key, what in (("push", "the folder of an artifact"), ("repo", "owner/name on the hub")):
        if not isinstance(cfg[key], str):
            raise ValueError(
                f"{key} must be {what}, got {cfg[key]!r}. As in: push=artifacts/tokenizers/vmae-3f9c21ab repo=owner/name"
            )
    if not isinstance(cfg.private, bool):
        raise ValueError(f"private must be true or false, got {cfg.private!r}.")
    log.info(
        "Pushed: %s", push(cfg.push, cfg.repo, private=cfg.private, licence=cfg.licence, records=cfg.paths.records)
    )


def push(
    artifact: str | Path,
    repo: str,
    *,
    private: bool = False,
    licence: str | None = None,
    records: str | Path | None = None,
) -> str:
    """Puts an artifact on the hub in one commit, its card beside it, and returns the commit's address. `hf://owner/name` then loads it.

    `private` is of a repository that is not there yet; `licence` is the hub's word for yours; `records`: the folder of those whose figures of
    this artifact the card tells. Raises ValueError, with what to do, for a folder that is incomplete or altered, and where the hub does not take it.
    """
    from ldbench.artifacts import hub
    from ldbench.artifacts import store as artifacts
    from ldbench.official import model_card
    from ldbench.results import store

    folder = Path(artifact).expanduser()
    hub.validate_repo_id(repo)
    artifacts.verify(folder)
    kind = json.loads((folder / artifacts.CONFIG).read_text())["group"]
    if kind not in model_card.TASKS:
        raise ValueError(f"{folder} is a {kind}. What goes on the hub is one of {', '.join(model_card.TASKS)}.")
    name = artifacts.name_of(folder)
    found = [] if records is None else model_card.measured(store.read_all(Path(records)), name, kind)
    card = model_card.make_card(folder, repo, found, licence=licence)
    files = {file: folder / file for file in (artifacts.WEIGHTS, artifacts.CONFIG, artifacts.MANIFEST)}
    return hub.upload(
        {**files, "README.md": card.encode()}, repo, private=private, message=f"{name}, with {len(found)} records"
    )


def main() -> None:
    launch("hub", run)


if __name__ == "__main__":
    main()
