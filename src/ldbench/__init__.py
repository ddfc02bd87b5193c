"""ldbench: which image tokenizer makes latent diffusion better, and why. Importing it loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from omegaconf import DictConfig
    from torch import Tensor

    from ldbench.core.generator import Generator
    from ldbench.core.latent_stats import LatentStats
    from ldbench.core.tokenizer import Tokenizer

__version__ = "0.1.0"
__all__ = ["compose", "list_generators", "list_official", "list_tokenizers", "load", "load_official", "push"]


def compose(config_name: str, overrides: Sequence[str] = (), *, searchpath: Sequence[str] = ()) -> DictConfig:
    """The config that `python -m ldbench.<config_name> <overrides>` runs. Raises ValueError for an invalid override."""
    from ldbench.config.compose import Registry
    from ldbench.config.installed import with_folders

    return Registry(with_folders(searchpath, overrides)).compose(config_name, overrides)


def list_tokenizers() -> list[str]:
    """The names of tokenizers that `tokenizer=` takes."""
    from ldbench.config.compose import Registry
    from ldbench.config.installed import with_folders

    return sorted(name for name, raw in Registry(with_folders()).options("tokenizer").items() if "path" not in raw)


def list_generators() -> list[str]:
    """The names of generators that `generator=` takes."""
    from ldbench.config.compose import Registry
    from ldbench.config.installed import with_folders

    return sorted(name for name in Registry(with_folders()).options("generator") if name != "artifact")


def list_official() -> dict[str, Any]:
    """The names that `load_official` takes, each with source, license and citation."""
    from ldbench import official

    return official.catalog()


def load(path: str | Path, *, searchpath: Sequence[str] = ()) -> Tokenizer | Generator:
    """The model of an artifact folder, in eval mode on the CPU.

    Raises ValueError for a folder that is incomplete or altered. `searchpath`: config folders of other packages whose
    components the artifact may name.
    """
    import torch

    from ldbench.artifacts import store
    from ldbench.config.compose import Registry
    from ldbench.config.installed import with_folders

    with torch.random.fork_rng(devices=[]):  # building a model draws weights
        return cast("Tokenizer | Generator", store.load(path, registry=Registry(with_folders(searchpath))))


def load_official(
    name: str,
    source: str | Path | Mapping[str, Tensor] | None = None,
    *,
    stats: str | Path | float | tuple[Any, Any] | LatentStats | None = None,
    **settings: Any,
) -> Tokenizer | Generator:
    """An officially released model, in eval mode on the CPU.

    `source` is a state dict, a file, a folder or a hub id (None: the published one). `stats` of a generator are the
    statistics of its training latents, which no official file holds: `latents_stats.pt`, (mean, std), or the scale that
    these latents were multiplied by (0.18215). Without them its `.backbone` works, and sampling raises with what to
    pass. `settings` are what no tensor holds and a config.json otherwise does: `tau=0.1`, `num_heads=12`.
    Raises ValueError for an unknown name, for tensors that are missing or of another shape, and for statistics of
    another number of channels.
    """
    import torch

    from ldbench.official import load as released

    with torch.random.fork_rng(devices=[]):
        return cast("Tokenizer | Generator", released.load(name, source, stats=stats, settings=settings))


def push(
    artifact: str | Path,
    repo: str,
    *,
    private: bool = False,
    licence: str | None = None,
    records: str | Path | None = None,
) -> str:
    """Uploads an artifact folder with a model card to the Hugging Face hub; `load("hf://owner/name")` then loads it.

    Returns the commit's URL. `private` applies to a new repository; `licence` is the hub's identifier of your license;
    `records`: a folder of records, for the card. Raises ValueError, with what to do, for a folder that is incomplete or
    altered, and if the hub refuses it.
    """
    from ldbench import hub

    return hub.push(artifact, repo, private=private, licence=licence, records=records)
