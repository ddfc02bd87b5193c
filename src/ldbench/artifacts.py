"""Artifacts: weights and the names and numbers that made them, one folder each, complete or absent. The door for weights from outside.

A folder `<name>-<digest>` holds `weights.safetensors`, `config.json` and, written last, `manifest.json` with the checksums of both.
"""

import argparse
import importlib.util
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import Tensor, nn

from ldbench import config, huggingface
from ldbench.core.allowance import Allowance
from ldbench.core.files import digest as digest
from ldbench.core.files import file_digest, read_json, write_json
from ldbench.core.latent import LatentSpec
from ldbench.core.normaliser import Normaliser
from ldbench.core.pickles import first_line, read_pickle, sound_tensors
from ldbench.core.tensors import write_tensors

log = logging.getLogger(__name__)

SCHEMA = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
PARTS = ("backbone", "objective", "interpolant", "times")  # config groups that a model's keywords may name components of
WEIGHT_NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors", WEIGHTS, "pytorch_model.bin", "model.pt", "model.pth")


@dataclass(frozen=True)
class Blueprint:
    """What a model is made of, in names and numbers: enough to build it, and nothing that could run foreign code."""

    group: str  # a config group, such as "tokenizer"
    component: str  # an option of that group
    keywords: Mapping[str, Any]  # the constructor's; a latent in numbers


def build(blueprint: Blueprint, state: Mapping[str, Tensor], *, searchpath: Sequence[str] = ()) -> nn.Module:
    """The model of a blueprint with these weights, in eval mode. Raises ValueError unless names and shapes fit exactly."""
    make = config.component(blueprint.group, blueprint.component, searchpath)
    try:
        with Allowance(state):
            model = make(**made(blueprint.keywords, searchpath))
    except Exception as error:  # numbers of anybody can fail a constructor in any way
        if isinstance(error, ValueError) and str(error).endswith((".", "?")):  # a sentence of the component's own
            raise
        told = f"{first_line(error)}" if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"These keywords do not fit {blueprint.component}: {told}. Was it made by another version of ldbench?") from error
    check_state(model, state)
    model.load_state_dict(state)
    return model.eval()


def made(keywords: Mapping[str, Any], searchpath: Sequence[str] = ()) -> dict[str, Any]:
    """Keywords in which what is told in names and numbers is the object itself: a latent, a normaliser, and parts that name their component.

    A part stands under the name of its config group, as in `{"interpolant": {"component": "linear"}}`; it may hold parts of its own.
    Raises ValueError for a component that its group does not have: no other code is ever run.
    """
    return {name: part(name, told, searchpath) for name, told in keywords.items()}


def part(name: str, told: Any, searchpath: Sequence[str]) -> Any:
    """One keyword's value, see `made`."""
    if not isinstance(told, Mapping):
        return told
    if name == "latent":
        return LatentSpec.from_numbers(told)
    if name == "normaliser":
        return Normaliser(**told)
    if "component" not in told:
        return told
    if name not in PARTS:
        raise ValueError(f"{name} is no part of a model. Known: {', '.join(PARTS)}.")
    rest = {key: value for key, value in told.items() if key != "component"}
    return config.component(name, told["component"], searchpath)(**made(rest, searchpath))


def check_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming the first tensors that are missing, not known, of another shape or kind, or hold NaN or infinity."""
    ours = model.state_dict()
    expected = {key: tuple(value.shape) for key, value in ours.items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    faults = [
        ("missing", sorted(expected.keys() - given.keys())),
        ("not known", sorted(given.keys() - expected.keys())),
        (
            "of another shape",
            [f"{key} {given[key]}, expected {shape}" for key, shape in expected.items() if given.get(key, shape) != shape],
        ),
        ("of another kind", [f"{key} {value.dtype}" for key, value in state.items() if key in ours and kind(value) != kind(ours[key])]),
        ("not finite", [key for key, value in state.items() if not (value.is_meta or torch.isfinite(value).all())]),
    ]
    told = [f"{len(keys)} {what} (first: {keys[0]})" for what, keys in faults if keys]
    if told:
        raise ValueError(f"These weights do not fit {type(model).__name__}: {'; '.join(told)}. Check that model and file belong together.")


def kind(value: Tensor) -> tuple[bool, bool, bool]:
    """What a tensor's numbers are: floating point, complex, or truth values; whole where none of these."""
    return value.is_floating_point(), value.is_complex(), value.dtype == torch.bool


def save(model: nn.Module, folder: Path, blueprint: Blueprint, *, recipe: Mapping[str, Any], digest: str, provenance: Mapping[str, Any]) -> None:
    """Writes an artifact folder, which is there whole or not at all. Of two callers at once one must wait: hold its `building_lock`.

    `recipe` is what the digest covers, `provenance` what else is worth knowing (environment, times).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".building-{folder.name}")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
    try:
        building.mkdir()
        write_tensors(model.state_dict(), building / WEIGHTS)
        made_of = {"group": blueprint.group, "component": blueprint.component, "keywords": dict(blueprint.keywords)}
        write_json(building / CONFIG, {"schema": SCHEMA, **made_of, "recipe": recipe})
        files = {name: file_digest(building / name) for name in (WEIGHTS, CONFIG)}
        write_json(building / MANIFEST, {"schema": SCHEMA, "name": folder.name, "digest": digest, "files": files, **provenance})
        if folder.exists():  # left over from a version that could not be completed
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def load(path: str | Path, *, searchpath: Sequence[str] = ()) -> nn.Module:
    """The model of an artifact folder, in eval mode on the CPU.

    Raises ValueError for a folder that is missing, incomplete or altered, and for components that no trusted config group names.
    """
    folder = local(path)
    verify(folder)
    described = read_config(folder)
    blueprint = Blueprint(described["group"], described["component"], described["keywords"])
    try:
        state = sound_tensors(read_file(folder / WEIGHTS), (folder / WEIGHTS).stat().st_size)
        return build(blueprint, state, searchpath=searchpath)
    except ValueError as error:
        raise ValueError(f"{folder} makes no model: {error}") from error


def verify(folder: Path) -> None:
    """Raises ValueError unless every file of an artifact is what its manifest says."""
    for name, expected in read_manifest(folder)["files"].items():
        if not (folder / name).is_file() or file_digest(folder / name) != expected:
            raise ValueError(
                f"{folder / name} is not what its manifest says: it was altered or cut short. "
                f"Remove {folder} and run the command that made it again, or copy it again."
            )


def local(path: str | Path) -> Path:
    """The folder of an artifact: itself, or the local copy of `hf://owner/name`, or of a revision of it, `hf://owner/name@revision`."""
    name = str(path)
    return huggingface.fetch(name.removeprefix("hf://")) if name.startswith("hf://") else Path(name).expanduser()


def name_of(folder: Path) -> str:
    """What an artifact is called, wherever it was copied to. Raises ValueError for a name that is not its own."""
    manifest = read_manifest(folder)
    name = manifest.get("name", folder.absolute().name)  # manifests had none at first
    if "name" in manifest and not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) and name.endswith(f"-{manifest['digest'][:8]}")):
        raise ValueError(
            f"{folder / MANIFEST} names the artifact {name!r}. Expected letters and digits, then -{manifest['digest'][:8]}: copy it again."
        )
    return name


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact. Raises ValueError for a folder without a readable one."""
    if not is_complete(folder):
        known = sorted(p.name for p in folder.parent.glob("*") if is_complete(p)) if folder.parent.is_dir() else []
        there = f" Artifacts there: {', '.join(known)}." if known else ""
        raise ValueError(f"{folder} is no complete artifact: it has no {MANIFEST}.{there}")
    manifest = read_json(folder / MANIFEST)
    wanted = {"files": dict, "schema": int, "digest": str}
    missing = [key for key, kind in wanted.items() if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind)]
    if missing:
        told = f"{missing[0]} is missing, or no {wanted[missing[0]].__name__}"
        raise ValueError(f"{folder / MANIFEST} is no manifest of an artifact ({told}). Train it again, or copy it again.")
    named, schema = set(manifest["files"]), manifest["schema"]
    if schema != SCHEMA:
        raise ValueError(f"{folder} has schema {schema}, and this version of ldbench reads {SCHEMA}. Use the version that made it, or a newer one.")
    if named != {WEIGHTS, CONFIG}:
        raise ValueError(f"{folder / MANIFEST} names {sorted(named)}. Expected {[CONFIG, WEIGHTS]}: train it again, or copy it again.")
    return manifest


def read_config(folder: Path) -> dict[str, Any]:
    """What an artifact is made of: its group, component, keywords and recipe. Raises ValueError, naming the file, for anything else."""
    described = read_json(folder / CONFIG)
    wanted = {"group": str, "component": str, "keywords": dict, "recipe": dict}
    missing = [key for key, kind in wanted.items() if not isinstance(described, dict) or not isinstance(described.get(key), kind)]
    if missing:
        told = f"{missing[0]} is missing, or no {wanted[missing[0]].__name__}"
        raise ValueError(f"{folder / CONFIG} describes no artifact ({told}). Train it again, or copy it again.")
    return described


def is_complete(folder: Path) -> bool:
    """Whether an artifact is there: its manifest is written last."""
    return (folder / MANIFEST).is_file()


@contextmanager
def building_lock(folder: Path, *, doing: str | None = "building") -> Iterator[None]:
    """Holds the right to build an artifact; waits for whoever holds it, and says what that one is doing. It ends with its process, killed too."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        if doing:
            log.info("Another process is %s %s. Waiting for it.", doing, folder.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_weights(source: str | Path | Mapping[str, Any], *, averaged: bool = False) -> dict[str, Tensor]:
    """The tensors of a weights file, by name: a state dict, `.pt`/`.pth`/`.bin`/`.safetensors`, a folder in Hugging Face layout, or a hub id.

    A training checkpoint is opened at its `model` or `state_dict`, and where `averaged` weights are wanted, at its `ema` first. Pickles go
    through torch's restricted loader.
    Raises ValueError or FileNotFoundError with what was found and what was expected.
    """
    content = dict(source) if isinstance(source, Mapping) else read_file(found := locate(source))
    for key in (*(["ema"] if averaged else []), "model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = dict(content[key])
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not isinstance(source, Mapping):
        try:
            tensors = sound_tensors(content, found.stat().st_size)
        except ValueError as error:
            raise ValueError(f"{found}: {error}") from error
    if not tensors:
        found = ", ".join(ascii(key)[:40].strip("'") for key in list(content)[:5] if isinstance(key, str | int)) or "nothing"
        where = "these weights" if isinstance(source, Mapping) else f"{source}"
        raise ValueError(f"No tensors in {where}; found {found}. Expected a state dict, or a checkpoint with one under `model`.")
    return tensors


def read_settings(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """What the config.json beside a weights file says, as in Hugging Face's layout; nothing where there is none.

    Raises ValueError for one that cannot be read.
    """
    path = None if isinstance(source, Mapping) else locate(source).parent / CONFIG
    if path is None or not path.is_file():
        return {}
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}. Expected an object of settings.")
    return settings


def torchmetrics_heads() -> Path:
    """The linear heads of LPIPS on VGG16, which torchmetrics brings along."""
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
    """A file whose name ends in how its sha256 begins. Raises ValueError where it is not there and cannot be had."""
    path = cached(url)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{what} cannot be downloaded from {url} ({error}). Put the file at {path}, or give its path.") from error
    return path


def cached(url: str) -> Path:
    """Where torch's hub cache keeps a file, whether it is there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


INCEPTION = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"
DOWNLOADS = {"the Inception-v3 of FID": INCEPTION, "torchvision's VGG16": VGG16}
BUNDLED = {"torchmetrics://lpips_vgg": torchmetrics_heads, "torchvision://vgg16": torchvision_vgg16, "torch-fidelity://inception": fidelity_inception}


def locate(source: str | Path) -> Path:
    """The weights file that a path, a hub id (`owner/name`, `hf://owner/name`) or a name in BUNDLED stands for.

    Raises FileNotFoundError where there is none.
    """
    name = str(source)
    if name in BUNDLED:
        return BUNDLED[name]()
    if not name.isprintable():
        raise ValueError(f"{name!a} is the name of no file. Expected a .pt, .pth, .bin or .safetensors file, a folder with one, or a hub id.")
    path = Path(name.removeprefix("hf://")).expanduser()
    is_hub_id = name.startswith("hf://") or (name.count("/") == 1 and not path.suffix and not name.startswith((".", "~", "/")))
    if not path.exists() or name.startswith("hf://"):
        if not is_hub_id:
            raise FileNotFoundError(f"There is no file {path}. Expected a .pt, .pth, .bin or .safetensors file, a folder with one, or a hub id.")
        path = local(name if name.startswith("hf://") else f"hf://{name}")
    if path.is_dir():
        inside = [path / known for known in WEIGHT_NAMES if (path / known).is_file()]
        if not inside:
            raise FileNotFoundError(f"The folder {path} holds no weights. Expected one of {', '.join(WEIGHT_NAMES)}.")
        return inside[0]
    return path


def read_file(path: Path) -> dict[str, Any]:
    """The content of a safetensors file or of a pickle read by torch's restricted loader. Raises ValueError for anything else."""
    expected = "Expected tensors in .safetensors, .pt or .pth."
    if not path.is_file():  # a pipe would be read for ever
        raise ValueError(f"{path} is no file. {expected}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # a damaged or hostile file can fail in any way
            raise ValueError(f"{path} is no weights file that is safe to read ({first_line(error)}). {expected}") from error
    try:
        content = read_pickle(path, allowed=[argparse.Namespace])  # official checkpoints carry their command line
    except ValueError as error:
        raise ValueError(str(error).replace("is no file that", "is no weights file that") + f" {expected}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}. Expected a state dict, or a checkpoint with one under `model`.")
    return dict(content)
