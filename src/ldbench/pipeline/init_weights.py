"""Where a training begins when not from nothing: `init=` an artifact, or released weights of the configured model.

With `init_partial=true` only the tensors whose names and shapes fit are taken; the others begin as they would without.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor, nn

from ldbench import official
from ldbench.artifacts import store, weights
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.tokenizer import Tokenizer
from ldbench.official.load import load as load_released

log = logging.getLogger(__name__)

MANY = 4  # tensors that a line names


@dataclass(frozen=True)
class InitWeights:
    """The weights that a training begins with."""

    source: str  # as the config names it
    group: str  # "tokenizer" or "generator"
    content_key: str  # of the artifact's recipe and weights, or of the released file
    partial: bool  # whether tensors that do not fit are left out
    released: str | None  # the official name of released weights; None: an artifact
    registry: Registry

    def load(self) -> nn.Module:
        """Its model, in eval mode on the CPU."""
        if self.released is not None:
            return load_released(self.released, self.source)
        folder = artifact_folder(self.source)
        assert folder is not None, "it was one when this was resolved"
        return store.load(folder, registry=self.registry)

    def load_into(self, model: nn.Module, given: Mapping[str, Tensor]) -> None:
        """Sets a model's tensors to the given ones, and logs what is left out. Raises ValueError as `fitting`."""
        taken = self.fitting(model, given)
        if self.partial:
            others = [f"{key} {tuple(value.shape)}" for key, value in given.items() if key not in taken]
            anew = [f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items() if key not in taken]
            log.info(
                "init=%s: %d of %d tensors are taken. Left out: %s. Initialized as without: %s.",
                *(self.source, len(taken), len(given), listed(others), listed(anew)),
            )
        model.load_state_dict({**model.state_dict(), **taken})

    def fitting(self, model: nn.Module, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The given tensors that fit a model: all, unless some may be left out.

        Raises ValueError for tensors that do not fit, or if none does.
        """
        own = model.state_dict()
        taken = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
        if self.partial and not taken:
            raise ValueError(f"init={self.source}: none of its {len(given)} tensors fits. Leave init out.")
        try:
            store.validate_state(model, {**own, **taken} if self.partial else given)
        except ValueError as error:
            hint = "" if self.partial else " init_partial=true takes those that fit."
            raise ValueError(f"init={self.source}: {error}{hint}") from error
        return taken


def listed(names: Sequence[str]) -> str:
    """The first names, and how many there are."""
    if not names:
        return "none"
    return f"{', '.join(names[:MANY])}{f', ... ({len(names)})' if len(names) > MANY else ''}"


def resolve_init(cfg: DictConfig, group: str, registry: Registry = Registry()) -> InitWeights | None:
    """Returns the weights under `init` if they are of this group, "tokenizer" or "generator".

    Raises ValueError for what is neither an artifact nor released weights of the configured model.
    """
    if cfg.init is None:
        return None
    partial = bool(cfg.get("init_partial", False))
    folder = artifact_folder(cfg.init)
    if folder is not None:
        is_ours = store.read_config(folder)["group"] == group
        key = store.content_key(folder)
        return InitWeights(cfg.init, group, key, partial, None, registry) if is_ours else None
    names = official_names(cfg)
    if not names:
        raise ValueError(
            f"init={cfg.init} is no artifact: it has no {store.MANIFEST}. Give an artifact's folder; or for released "
            "weights choose the model by its official name, as in tokenizer=vavae_f16d32 or generator=sit_xl_2."
        )
    if len(names) > 1:
        raise ValueError(
            f"init={cfg.init} are released weights, and both {' and '.join(names.values())} are trained. "
            "Train the tokenizer first, or give init an artifact."
        )
    if group not in names:
        return None
    try:
        file = weights.locate(cfg.init)
    except (ValueError, OSError) as error:
        raise ValueError(f"init={cfg.init}: {error}") from error
    stat = file.stat()
    key = released_key(names[group], file, stat.st_size, stat.st_mtime_ns)
    return InitWeights(cfg.init, group, key, partial, names[group], registry)


@cache
def released_key(
    name: str,
    file: Path,
    size: int,  # with `changed` it says whether the file is still the one that was read
    changed: int,
) -> str:
    """The content key of released weights, by their official name."""
    return store.digest({"official": name, "sha256": store.file_digest(file), "revision": official.REVISION})


def artifact_folder(source: str) -> Path | None:
    """The folder of an artifact; None for anything else, such as released weights."""
    folder = weights.locate(source).parent if source.startswith("hf://") else Path(source).expanduser()
    return folder if store.is_complete(folder) else None


def official_names(cfg: DictConfig) -> dict[str, str]:
    """The official names of the tokenizer and the generator that a config trains, by group."""
    names = {}
    for group in ("tokenizer", "generator"):
        node = cfg.get(group) or {}
        name = node.get("name")
        if "path" not in node and node.get("weights") is None and name in official.catalog():
            names[group] = str(name)
    return names


def start_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model that a training begins with: a tokenizer's, or those of a generator's backbone."""
    if isinstance(model, Generator):
        return model.backbone.state_dict()
    assert isinstance(model, Tokenizer), "of either group"
    return model.state_dict()


def recipe_entry(start: InitWeights | None) -> dict[str, object]:
    """What a training's recipe holds of its initial weights."""
    if start is None:
        return {}
    return {"init": start.content_key, **({"init_partial": True} if start.partial else {})}


def validate_init(cfg: DictConfig, trained: Sequence[str], registry: Registry = Registry()) -> None:
    """Raises ValueError for an `init` that nothing starts from; `trained` are the groups that the config trains."""
    if cfg.init is None:
        if cfg.get("init_partial"):
            raise ValueError("init_partial=true has no effect without init=. Leave it out.")
        return
    if not any(resolve_init(cfg, group, registry) for group in trained):
        folder = artifact_folder(cfg.init)
        there = store.read_config(folder)["group"] if folder else "model"
        raise ValueError(
            f"init={cfg.init} is a {there}, and none is trained "
            f"here{': ' + ', '.join(trained) + ' is' if trained else ''}. Leave it out."
        )
