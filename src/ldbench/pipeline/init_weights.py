"""Where a training begins when not from nothing: the weights of an artifact, `init=` in the config."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from ldbench.artifacts import hub, store
from ldbench.config.compose import Registry


@dataclass(frozen=True)
class InitWeights:
    """An artifact whose weights a training begins with."""

    folder: Path
    content_key: str  # of its recipe and weights
    registry: Registry

    def load(self) -> nn.Module:
        """Its model, in eval mode on the CPU."""
        return store.load(self.folder, registry=self.registry)


def resolve_init(cfg: DictConfig, group: str, registry: Registry = Registry()) -> InitWeights | None:
    """Returns the artifact under `init` if it is of this group, "tokenizer" or "generator".

    Raises ValueError for a folder that is no artifact.
    """
    if cfg.init is None:
        return None
    folder = hub.local(cfg.init)
    if not (folder / store.CONFIG).is_file():
        raise ValueError(
            f"init={cfg.init} is no artifact: there is no {folder / store.CONFIG}. Give an artifact's folder."
        )
    is_ours = store.read_config(folder)["group"] == group
    return InitWeights(folder, store.content_key(folder), registry) if is_ours else None


def validate_init(cfg: DictConfig, trained: Sequence[str], registry: Registry = Registry()) -> None:
    """Raises ValueError for an `init` that nothing starts from; `trained` are the groups that the config trains."""
    if cfg.init is not None and not any(resolve_init(cfg, group, registry) for group in trained):
        there = store.read_config(hub.local(cfg.init))["group"]
        raise ValueError(
            f"init={cfg.init} is a {there}, and none is trained "
            f"here{': ' + ', '.join(trained) + ' is' if trained else ''}. Leave it out."
        )
