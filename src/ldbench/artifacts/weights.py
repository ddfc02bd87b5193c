"""Weights from outside: tensors in a file, in a folder of Hugging Face's layout, on the hub, or in a dependency."""

import argparse
import importlib.util
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ldbench.artifacts import hub
from ldbench.artifacts.weight_names import STATS, choose_weights
from ldbench.io.files import read_json
from ldbench.io.safe_load import first_line, read_pickle, validated_tensors

log = logging.getLogger(__name__)

LFS_POINTER = b"version https://git-lfs"
EXPECTED_SOURCE = "Expected a .pt, .pth, .ckpt, .bin or .safetensors file, a folder with one, or a hub id."
SETTINGS = "config.json"  # in the same folder
MANIFEST = "manifest.json"  # there too, if the folder is an artifact of ours
INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"
DOWNLOADS = {"the Inception-v3 of FID": INCEPTION, "torchvision's VGG16": VGG16}


def read_weights(source: str | Path | Mapping[str, Any], *, averaged: bool = False) -> dict[str, Tensor]:
    """The tensors of a weights file by name: a state dict, `.pt`/`.pth`/`.bin`/`.safetensors`, a folder, or a hub id.

    A folder has Hugging Face's layout. A training checkpoint is opened at its `model` or `state_dict`, and if
    `averaged` weights are requested, at its `ema` first. Pickles go through torch's restricted loader.
    Raises ValueError or FileNotFoundError with what was found and what was expected.
    """
    content = dict(source) if isinstance(source, Mapping) else read_file(path := locate(source))
    opened = []
    for key in (*(["ema"] if averaged else []), "model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            others = [other for other in ("ema", "model", "state_dict") if other in content and other != key]
            opened.append(f"`{key}`" + (f" (it also holds {', '.join(others)})" if others else ""))
            content = dict(content[key])
    if opened and not isinstance(source, Mapping):
        log.info("Weights of %s: those under %s.", path, ", in it ".join(opened))
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not isinstance(source, Mapping):
        try:
            tensors = validated_tensors(content, path.stat().st_size)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if not tensors:
        keys = [ascii(key)[:40].strip("'") for key in list(content)[:5] if isinstance(key, str | int)]
        where = "these weights" if isinstance(source, Mapping) else f"{source}"
        raise ValueError(
            f"No tensors in {where}; found {', '.join(keys) or 'nothing'}. "
            "Expected a state dict, or a checkpoint with one under `model`."
        )
    return tensors


def read_settings(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The config.json in the folder of a weights file, as in Hugging Face's layout; empty if there is none.

    Raises ValueError for one that cannot be read.
    """
    path = None if isinstance(source, Mapping) else locate(source).parent / SETTINGS
    if path is None or not path.is_file():
        return {}
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}. Expected an object of settings.")
    return settings


def locate(source: str | Path) -> Path:
    """The weights file of a path, a hub id (`owner/name`, `hf://owner/name`) or a name in BUNDLED.

    On the hub, `hf://owner/name/PART@revision` names a folder or a file in a repository. Raises FileNotFoundError if
    there is none, and ValueError, with the choice, if there are several.
    """
    name = str(source)
    if name in BUNDLED:
        return BUNDLED[name]()
    if not name.isprintable():
        raise ValueError(f"{name!a} is the name of no file. {EXPECTED_SOURCE}")
    path = Path(name.removeprefix("hf://")).expanduser()
    is_hub_id = name.startswith("hf://") or (
        name.count("/") == 1 and not path.suffix and not name.startswith((".", "~", "/"))
    )
    if not path.exists() or name.startswith("hf://"):
        if not is_hub_id:
            raise FileNotFoundError(f"There is no file {path}. {EXPECTED_SOURCE}")
        hub_id = f"hf://{name.removeprefix('hf://')}"
        choose = partial(choose_weights, where=hub_id.partition("@")[0])
        return hub.fetch_file(hub_id, choose, beside=(SETTINGS, STATS, MANIFEST))
    if path.is_dir():
        files = [
            file.relative_to(path).as_posix() for kind in ("*", "*/*") for file in path.glob(kind) if file.is_file()
        ]
        return path / choose_weights(files, "", str(path))
    return path


def read_file(path: Path) -> dict[str, Any]:
    """The content of a safetensors file, or of a pickle read by torch's restricted loader.

    Raises ValueError for anything else.
    """
    expected = "Expected tensors in .safetensors, .pt or .pth."
    if not path.is_file():  # a pipe would be read for ever
        raise ValueError(f"{path} is not a file. {expected}")
    if is_lfs_pointer(path):
        raise ValueError(
            f"{path} is a pointer of git-lfs, {path.stat().st_size} bytes of text in place of the weights. Fetch the "
            "file: git lfs pull, or download it from the page of its repository."
        )
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # a damaged or hostile file can fail in any way
            raise ValueError(
                f"{path} is not a weights file that is safe to read ({first_line(error)}). {expected}"
            ) from error
    try:
        content = read_pickle(path, allowed=[argparse.Namespace])  # official checkpoints carry their command line
    except ValueError as error:
        raise ValueError(
            str(error).replace("is not a file that", "is not a weights file that") + f" {expected}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}. Expected a state dict, or a checkpoint with one under `model`."
        )
    return dict(content)


def is_lfs_pointer(path: Path) -> bool:
    """Whether git-lfs has not fetched a file: it is then a few lines of text."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def torchmetrics_heads() -> Path:
    """The linear heads of LPIPS on VGG16, which are shipped with torchmetrics."""
    package = importlib.util.find_spec("torchmetrics")
    assert package is not None, "torchmetrics is a dependency"
    return Path(str(package.origin)).parent / "functional" / "image" / "lpips_models" / "vgg.pth"


def torchvision_vgg16() -> Path:
    """torchvision's VGG16 trained on ImageNet, from torch's hub cache, downloaded on first use."""
    from torchvision.models import VGG16_Weights

    assert VGG16_Weights.IMAGENET1K_V1.url == VGG16
    return downloaded(VGG16, what="torchvision's VGG16")


def fidelity_inception() -> Path:
    """torch-fidelity's Inception-v3, from torch's hub cache, downloaded on first use."""
    return downloaded(INCEPTION, what="The Inception-v3 of FID")


def downloaded(url: str, *, what: str) -> Path:
    """A downloaded file, whose name ends in the first digits of its sha256. Raises ValueError if that fails."""
    path = cached(url)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{what} cannot be downloaded from {url} ({error}). Put the file at {path}, or give its path."
            ) from error
    return path


def cached(url: str) -> Path:
    """The path of a file in torch's hub cache, whether it exists or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


BUNDLED = {
    "torchmetrics://lpips_vgg": torchmetrics_heads,
    "torchvision://vgg16": torchvision_vgg16,
    "torch-fidelity://inception": fidelity_inception,
}
