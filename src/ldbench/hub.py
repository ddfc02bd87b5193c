"""python -m ldbench.hub: uploads an artifact to the Hugging Face hub, with a model card of its measurements."""

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
    """Called by Hydra with the composed config."""
    for key, what in (("push", "the folder of an artifact"), ("repo", "owner/name on the hub")):
        if not isinstance(cfg[key], str):
            raise ValueError(
                f"{key} must be {what}, got {cfg[key]!r}. "
                "For example: push=artifacts/tokenizers/vmae-3f9c21ab repo=owner/name"
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
    """Uploads an artifact with its model card to the hub in one commit; `hf://owner/name` then loads it.

    Returns the commit's URL. `private` applies to a new repository; `licence` is the hub's identifier of your license;
    `records`: a folder whose records of this artifact the card shows. Raises ValueError, with what to do, for a folder
    that is incomplete or altered, and if the hub refuses it.
    """
    from ldbench.artifacts import hub
    from ldbench.artifacts import store as artifacts
    from ldbench.artifacts.averages import average_path, stored_averages
    from ldbench.official import model_card
    from ldbench.results import store

    folder = Path(artifact).expanduser()
    hub.validate_repo_id(repo)
    artifacts.verify(folder)
    kind = json.loads((folder / artifacts.CONFIG).read_text(encoding="utf-8"))["group"]
    if kind not in model_card.TASKS:
        raise ValueError(f"{folder} is a {kind}. Only these can be uploaded: {', '.join(model_card.TASKS)}.")
    name = artifacts.name_of(folder)
    own = (
        []
        if records is None
        else model_card.select_records(store.read_all(Path(records)), name, artifacts.content_key(folder), kind)
    )
    card = model_card.build_card(folder, repo, own, licence=licence)
    averages = [average_path(Path(), decay) for decay in stored_averages(folder, artifacts.read_manifest(folder))]
    names = (artifacts.WEIGHTS, artifacts.CONFIG, artifacts.MANIFEST, *map(str, averages))
    files: dict[str, Path] = {file: folder / file for file in names}
    return hub.upload(
        {**files, "README.md": card.encode()}, repo, private=private, message=f"{name}, with {len(own)} records"
    )


def main() -> None:
    """Runs the command line."""
    launch("hub", run)


if __name__ == "__main__":
    main()
