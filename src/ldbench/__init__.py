"""ldbench: which image tokenizer makes latent diffusion better, and why. Importing it loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    import numpy as np
    import torch
    from omegaconf import DictConfig
    from torch import Tensor, nn

    from ldbench.core.estimate import Estimate as Estimate
    from ldbench.core.generator import Generator
    from ldbench.core.interfaces import ImageData
    from ldbench.core.latent_stats import LatentStats
    from ldbench.core.tokenizer import Tokenizer
    from ldbench.pipeline.evaluate_callback import Evaluate as Evaluate

LAZY = {"Estimate": "ldbench.core.estimate", "Evaluate": "ldbench.pipeline.evaluate_callback"}  # name -> its module
__all__ = [
    "Estimate",
    "Evaluate",
    "compose",
    "evaluate",
    "list_generators",
    "list_official",
    "list_tokenizers",
    "load",
    "load_official",
    "measure",
    "push",
]


def __getattr__(name: str) -> Any:
    """The installed package's version, or a class that is imported at its first use: it needs torch, or Lightning."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ldbench")
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(LAZY[name]), name)


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})


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


def measure(
    tokenizer: nn.Module | str | os.PathLike[str],
    job: str = "reconstruct",
    data: str | ImageData = "digits",
    *,
    image_size: int | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    protocol: str | Mapping[str, Any] | None = None,
    record: str | os.PathLike[str] | None = None,
    force: bool = False,
    root: str | os.PathLike[str] = ".",
    device: torch.device | str | None = None,
    overrides: Sequence[str] = (),
    searchpath: Sequence[str] = (),
    **settings: Any,
) -> dict[str, Estimate]:
    """The metrics of a job on any tokenizer, with their 95 % intervals, as `python -m ldbench.run job=...` has them.

    Example:
        metrics = ldbench.measure(my_autoencoder, "smoothness", "folder:DIR", image_size=256, num_images=64)

    `tokenizer` is a module with `encode` and `decode`: one of ours, an autoencoder of diffusers (by the conventions of
    its class), or any other, whose `encode` returns a tensor (B, C, H, W) or (B, N, C) or a distribution, and whose
    `decode` takes what it returned; its images are in `value_range`. Or it is an artifact: a folder, `hf://owner/name`,
    or a name below `root`. A module is the same afterwards, and so are torch's settings and random streams.

    data: a dataset's name, `folder:DIR`, or an object as `ldbench.core.interfaces.ImageData` describes it.
    image_size: of the images (px), where neither the tokenizer nor the data say it.
    protocol: a protocol's name, or fields in the place of those of the data's own.
    record: a folder, in which a record is written, or found unless `force`. A module's has the name
    `given-<class>-<digest>`; its identity covers its class with its source, and the sha256 of its state dict.
    root: where feature networks and the features of real images are kept (`artifacts/`), as on the command line.
    device: where it is computed; None: where the module is, else the best there is.
    overrides: anything else, as on the command line; `settings` are those of the job.
    Raises ValueError, with what to change, for whatever does not fit.
    """
    from ldbench.pipeline import from_python

    composed = from_python.compose_measurement(
        job,
        data,
        image_size=image_size,
        protocol=protocol,
        place=from_python.Place(root=root, record=record, force=force, device=device),
        overrides=overrides,
        searchpath=searchpath,
        settings=settings,
    )
    return from_python.measure(tokenizer, composed, value_range=value_range)


def evaluate(
    samples: str | os.PathLike[str] | Tensor | np.ndarray,
    reference: str | os.PathLike[str] | ImageData | None = None,
    *,
    originals: str | os.PathLike[str] | Tensor | np.ndarray | None = None,
    labels: Sequence[int] | Tensor | np.ndarray | None = None,
    value_range: tuple[float, float] | None = None,
    layout: Literal["nchw", "nhwc"] | None = None,
    by: str | None = None,
    image_size: int | None = None,
    protocol: str | Mapping[str, Any] | None = None,
    record: str | os.PathLike[str] | None = None,
    force: bool = False,
    root: str | os.PathLike[str] = ".",
    device: torch.device | str | None = None,
    overrides: Sequence[str] = (),
    searchpath: Sequence[str] = (),
    **settings: Any,
) -> dict[str, Estimate]:
    """The metrics of images that anybody made, as `python -m ldbench.run job=evaluate job.samples=...` has them.

    Example:
        metrics = ldbench.evaluate("SAMPLES", "REFERENCE", protocol={"extractor": "inception", "distribution": ["fd"]})

    `samples`: a folder (flat, or in folders of classes), an `.npz` in ADM's layout or a tar; or a tensor or array
    (n, 3, h, w) or (n, h, w, 3) of 8 bits, or of floats in `value_range`, which must then be given. `layout` says which
    of the two shapes it is where both are possible; `labels` are for images in memory.

    reference: what they are compared with: a dataset's name (`digits`, `imagenet256:DIR`), a folder of images, which is
    read as `data=folder` at the samples' size, an `.npz` in ADM's layout, or an object as
    `ldbench.core.interfaces.ImageData` describes it.
    originals: as many images as samples, which are then their reconstructions; they need no reference.
    by: who made them, in a record. The other arguments are as in `measure`.
    Raises ValueError, with what to change, for whatever does not fit, or could mean two things.
    """
    from ldbench.pipeline import evaluate_images, from_python

    return evaluate_images.evaluate(
        samples,
        reference,
        originals=originals,
        labels=labels,
        value_range=value_range,
        layout=layout,
        by=by,
        image_size=image_size,
        protocol=protocol,
        place=from_python.Place(root=root, record=record, force=force, device=device),
        overrides=overrides,
        searchpath=searchpath,
        settings=settings,
    )
