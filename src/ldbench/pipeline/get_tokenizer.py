"""Where a tokenizer comes from: a recipe to train, released weights to import, or an artifact that is there."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ldbench import official
from ldbench.artifacts import hub, store, weights
from ldbench.config.compose import Registry, plain
from ldbench.core.interfaces import ImageData
from ldbench.core.latent import LatentSpec
from ldbench.official.load import convert_weights
from ldbench.pipeline.tokenizer_plan import make_data, plan_tokenizer
from ldbench.results import records
from ldbench.runtime.process_group import broadcast_from_leader, is_worker_rank, leader_first

log = logging.getLogger(__name__)

CHOICES = (
    "position_resize",
    "channels_last",
    "checkpointing",
)  # keywords that no weights file tells: the config's count


@dataclass(frozen=True)
class Obtained:
    """A complete tokenizer artifact, and the data that the config pairs it with."""

    folder: Path
    digest: str
    data: ImageData

    @property
    def name(self) -> str:
        return store.name_of(self.folder) if store.is_complete(self.folder) else self.folder.name


Check = Callable[
    [LatentSpec, ImageData], None
]  # raises ValueError where others do not fit the tokenizer's latents and the images


def obtain(cfg: DictConfig, registry: Registry = Registry(), *, check: Check | None = None) -> Obtained:
    """The configured tokenizer, built if it is not there.

    Raises ValueError, before any work begins, for a config whose parts do not fit, and for what `check` refuses.
    """
    if "path" in list(cfg.tokenizer):  # also where it has no value yet
        return leader_first(partial(stored, cfg, registry))
    if cfg.tokenizer.weights is not None:
        return leader_first(partial(imported, cfg, registry))
    return trained(cfg, registry, check)


def stored(cfg: DictConfig, registry: Registry) -> Obtained:
    """The artifact under `tokenizer.path`."""
    if OmegaConf.is_missing(cfg.tokenizer, "path") or cfg.tokenizer.path is None:
        raise ValueError("tokenizer=artifact needs tokenizer.path: the folder of an artifact, or hf://owner/name.")
    folder = hub.local(cfg.tokenizer.path)
    manifest = store.read_manifest(folder)
    size = store.read_config(folder)["keywords"].get("image_size")
    if type(size) is not int:
        raise ValueError(
            f"{folder / store.CONFIG} tells no image_size: it is no tokenizer. Give tokenizer.path the folder of one."
        )
    cfg.tokenizer.image_size = size
    return Obtained(folder, manifest["digest"], make_data(cfg, registry))


def imported(cfg: DictConfig, registry: Registry) -> Obtained:
    """The artifact of the released weights under `tokenizer.weights`, whose digest covers the file's content."""
    name = cfg.tokenizer.name
    official.entry(name, "tokenizer")
    file = weights.locate(cfg.tokenizer.weights)
    recipe = {"kind": "tokenizer", "official": name, "sha256": store.file_digest(file), "revision": official.REVISION}
    choices = {key: value for key, value in plain(cfg.tokenizer.model).items() if key in CHOICES}
    recipe |= {"choices": choices}
    digest = store.digest(recipe)
    folder = Path(cfg.paths.artifacts) / "tokenizers" / f"{name}-{digest[:8]}"
    with store.building_lock(folder):
        if store.is_complete(folder):
            store.verify(folder)
            check_keywords(cfg, store.read_config(folder)["keywords"])
            log.info("Tokenizer %s is there already: %s", folder.name, folder)
            data = make_data(cfg, registry)
        else:
            found = convert_weights(name, file, averaged=False)
            check_keywords(cfg, found.keywords)
            data = make_data(cfg, registry)
            keywords = {**found.keywords, **choices}
            import_weights(folder, store.Blueprint(found.group, found.component, keywords), found.state, recipe, digest)
            log.info("Imported %s. Tokenizer: %s", file.name, folder)
    return Obtained(folder, digest, data)


def check_keywords(cfg: DictConfig, told: Mapping[str, Any]) -> None:
    """Raises ValueError where the config says otherwise than the tensors of a weights file."""
    said = {**plain(cfg.tokenizer.model), "image_size": cfg.tokenizer.image_size}
    differing = [key for key, value in told.items() if key not in CHOICES and said.get(key, value) != value]
    if differing:
        keys = {key: "tokenizer.image_size" if key == "image_size" else f"tokenizer.model.{key}" for key in differing}
        faults = "; ".join(f"{keys[key]} is {said[key]}, and the file holds {told[key]}" for key in differing)
        cure = " ".join(f"{keys[key]}={told[key]}" for key in differing)
        raise ValueError(
            f"These weights are of another {cfg.tokenizer.name} than the config: {faults}.\nSay {cure}, or give another file."
        )


def import_weights(
    folder: Path, blueprint: store.Blueprint, state: Mapping[str, Tensor], recipe: Mapping[str, Any], digest: str
) -> None:
    """Stores released weights as an artifact, after building the model that they are of."""
    model = store.build(blueprint, state)
    provenance = {"created": records.now(), "environment": records.environment()}
    store.save(model, folder, blueprint, recipe=recipe, digest=digest, provenance=provenance)


def trained(cfg: DictConfig, registry: Registry, check: Check | None) -> Obtained:
    """The artifact of the configured recipe."""
    planned = plan_tokenizer(cfg, registry)
    if check is not None:
        check(planned.latent, planned.data)
    found = Obtained(planned.folder, planned.digest, planned.data)
    lock = nullcontext() if is_worker_rank() else store.building_lock(planned.folder)
    with lock:
        if broadcast_from_leader(store.is_complete(planned.folder)):
            store.verify(planned.folder)
            log.info("Tokenizer %s is there already: %s", planned.name, planned.folder)
            return found
        from ldbench.pipeline import (
            tokenizer_training,  # Lightning takes seconds to load: what is there already need not wait for it
        )

        started = time.monotonic()
        tokenizer = tokenizer_training.train_tokenizer(planned)
        seconds = time.monotonic() - started
        if not is_worker_rank():
            provenance = {"created": records.now(), "seconds": round(seconds, 1), "environment": records.environment()}
            store.save(
                tokenizer,
                planned.folder,
                planned.blueprint,
                recipe=planned.recipe,
                digest=planned.digest,
                provenance=provenance,
            )
            log.info("Trained in %.0f s. Tokenizer: %s", seconds, planned.folder)
        broadcast_from_leader(True)  # others go on when it is stored
    return found
