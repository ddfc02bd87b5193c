"""Measurements from Python: of a module, of an artifact, or of images, by the code of the command line.

`ldbench.measure` and `ldbench.evaluate` call what is here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData
from ldbench.core.tokenizer import Tokenizer
from ldbench.pipeline.composed_job import ComposedJob, Place, compose_job, validate_tokenizer_job
from ldbench.pipeline.get_tokenizer import artifact_model
from ldbench.pipeline.given_model import PREFIX, given_model
from ldbench.pipeline.job_context import EvaluationTarget, protocol_splits
from ldbench.pipeline.pipeline import RunRequest, set_numerics, validate_half_precision, validate_sets
from ldbench.pipeline.tokenizer_plan import build_data, validate_image_size
from ldbench.pipeline.trained_model import MeasuredModel
from ldbench.runtime.device import find_device
from ldbench.runtime.process_group import acting_alone
from ldbench.runtime.restored import restored_globals, restored_module

PLACEHOLDER: dict[str, Any] = {"name": PREFIX, "path": PREFIX, "image_size": None}  # of a module that is not there yet


def compose_measurement(
    job: str,
    data: str | ImageData,
    *,
    image_size: int | None,
    protocol: str | Mapping[str, Any] | None,
    place: Place,
    overrides: Sequence[str],
    searchpath: Sequence[str],
    settings: Mapping[str, Any],
) -> ComposedJob:
    """A measurement of tokenizers. Raises ValueError for whatever is wrong in it and needs no tokenizer to be found."""
    validate_data(data)
    given = {"data": data, "image_size": image_size, "protocol": protocol, "place": place}
    more = {"overrides": overrides, "searchpath": searchpath, "settings": settings}
    composed = compose_job(job, **given, **more)  # type: ignore[arg-type]
    validate_tokenizer_job(composed)
    with acting_alone():
        composed.request(composed.within(Path("."), device=None, tokenizer=PLACEHOLDER))
    return composed


def measure_module(
    composed: ComposedJob,
    module: nn.Module,
    *,
    value_range: tuple[float, float],
    data: ImageData | None = None,  # the config's images, where they are open already
) -> dict[str, Estimate]:
    """A job's metrics of a module, which is afterwards what it was.

    Raises ValueError for a module that is no tokenizer, and for images of another size.
    """
    device = device_of(module) if composed.place.device is None else torch.device(composed.place.device)
    device = find_device("auto") if device is None else device
    data = open_images(composed, module) if data is None else data
    with undisturbed(device, module) as scratch:
        size = image_size_of(composed, module)
        cfg = composed.within(scratch, device=device, tokenizer={**PLACEHOLDER, "image_size": size})
        request = composed.request(cfg)
        set_numerics(cfg)
        module.to(device).eval()
        image = first_image(data, request).to(device)
        model = given_model(module, image, value_range=value_range, registry=composed.registry)
        if composed.place.record is not None:  # the identity reads all weights
            cfg.tokenizer = {"name": model.name, "path": None, "image_size": size, "given": model.description}
        return measure_model(composed, cfg, model, data, request, scratch)


def measure_artifact(composed: ComposedJob, path: str) -> dict[str, Estimate]:
    """A job's metrics of an artifact. Raises ValueError for one that does not exist."""
    device = None if composed.place.device is None else torch.device(composed.place.device)
    node = {"name": "artifact", "path": located(path, Path(composed.place.root)), "image_size": None}
    with undisturbed(device) as scratch:
        cfg = composed.within(scratch, device=device, tokenizer=None)
        cfg.tokenizer = node
        request = composed.request(cfg)
        set_numerics(cfg)
        model = artifact_model(cfg, composed.registry)
        return measure_model(composed, cfg, model, opened(composed, cfg), request, scratch)


def measure_model(
    composed: ComposedJob,
    cfg: DictConfig,
    model: MeasuredModel,
    data: ImageData,
    request: RunRequest,
    scratch: Path,
) -> dict[str, Estimate]:
    """A job's metrics of a model with images of its size. Raises ValueError for others, and for too few."""
    validate_image_size(cfg, composed.registry)
    validate_sets(request, data, composed.registry)
    validate_half_precision(cfg, request, model)
    return composed.measured(cfg, EvaluationTarget(data, model), request, scratch)


def measure_images(composed: ComposedJob) -> dict[str, Estimate]:
    """The metrics of a job that needs no model, such as `evaluate`."""
    device = None if composed.place.device is None else torch.device(composed.place.device)
    with undisturbed(device) as scratch:
        cfg = composed.within(scratch, device=device, tokenizer={**PLACEHOLDER, "image_size": composed.image_size})
        request = composed.request(cfg)
        set_numerics(cfg)
        return composed.measured(cfg, EvaluationTarget(opened(composed, cfg)), request, scratch)


@contextmanager
def undisturbed(device: torch.device | None, module: nn.Module | None = None) -> Iterator[Path]:
    """A scratch folder for a measurement within another program, of which nothing is another afterwards."""
    with ExitStack() as within:
        scratch = within.enter_context(tempfile.TemporaryDirectory(prefix="ldbench-"))
        within.enter_context(acting_alone())
        within.enter_context(restored_globals())
        if module is not None:
            within.enter_context(restored_module(module))
        if device is not None and device.type == "cuda" and device.index is not None:
            within.enter_context(torch.cuda.device(device))  # jobs compute on "cuda", which is then this one
        yield Path(scratch)


def device_of(module: nn.Module) -> torch.device | None:
    """Where a module's weights are; None for one without any."""
    tensor = next(module.parameters(), next(module.buffers(), None))
    return None if tensor is None else tensor.device


def image_size_of(composed: ComposedJob, module: nn.Module) -> int:
    """The side of the images in pixels: the module's own where it says it, else the data's.

    Raises ValueError where neither does.
    """
    size = module.image_size if isinstance(module, Tokenizer) else composed.image_size
    if size is None:
        raise ValueError(
            f"Images of {composed.cfg.data.name} are read at the tokenizer's size, and {type(module).__name__} does "
            "not say it. Give it: image_size=256."
        )
    return size


def open_images(composed: ComposedJob, module: nn.Module) -> ImageData:
    """The images that a module is measured on. Raises ValueError for images of another size than it takes."""
    with undisturbed(None) as scratch:
        size = image_size_of(composed, module)
        cfg = composed.within(scratch, device=None, tokenizer={**PLACEHOLDER, "image_size": size})
        return opened(composed, cfg)


def opened(composed: ComposedJob, cfg: DictConfig) -> ImageData:
    """The images that were given, else the config's."""
    return composed.data if composed.data is not None else build_data(cfg, composed.registry)


def first_image(data: ImageData, request: RunRequest) -> torch.Tensor:  # (1, 3, H, W)
    """The first image of the protocol's split."""
    return protocol_splits(data, request.protocol)[0][0][0][None]


def located(path: str, root: Path) -> str:
    """The folder of an artifact by its path, its name under `root`, or its place on the hub.

    Raises ValueError where there is none.
    """
    if path.startswith("hf://") or Path(path).expanduser().exists():
        return path
    folder = root / "artifacts" / "tokenizers"
    if (folder / path).is_dir():
        return str(folder / path)
    here = ", ".join(sorted(found.name for found in folder.glob("*-*") if found.is_dir())) or "none"
    raise ValueError(
        f"There is no artifact {path}. Give its folder, hf://owner/name, or one of those in {folder}: {here}. "
        "python -m ldbench.train tokenizer=vmae makes one."
    )


def validate_data(data: Any) -> None:
    """Raises ValueError for data that are neither a name nor images in two splits."""
    if isinstance(data, str | ImageData):
        return
    missing = [name for name in ImageData.__annotations__ if not hasattr(data, name)]
    raise ValueError(
        f"data must be a name, such as 'digits' or 'folder:DIR', or an ImageData, got a {type(data).__name__} without "
        f"{', '.join(missing)}."
    )


def measure(
    tokenizer: nn.Module | str | os.PathLike[str],
    composed: ComposedJob,
    *,
    value_range: tuple[float, float],
) -> dict[str, Estimate]:
    """See `ldbench.measure`."""
    if isinstance(tokenizer, nn.Module):
        return measure_module(composed, tokenizer, value_range=value_range)
    if isinstance(tokenizer, str | os.PathLike):
        return measure_artifact(composed, os.fspath(tokenizer))
    raise ValueError(f"A tokenizer is a torch module or the path of an artifact, got a {type(tokenizer).__name__}.")
