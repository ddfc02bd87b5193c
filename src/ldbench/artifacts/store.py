"""Artifacts: weights and the names and numbers that made them, one folder each, complete or absent.

A folder `<name>-<digest>` holds `weights.safetensors`, `config.json` and, written last, `manifest.json` with the checksums of both.
"""

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
from torch import Tensor, nn

from ldbench.artifacts import hub
from ldbench.artifacts.build_limit import Allowance
from ldbench.artifacts.weights import read_file
from ldbench.config import compose as config
from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.io.files import digest as digest
from ldbench.io.files import file_digest, read_json, write_json
from ldbench.io.safe_load import first_line, sound_tensors
from ldbench.io.safetensors_io import write_tensors

log = logging.getLogger(__name__)

SCHEMA = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
PARTS = (
    "backbone",
    "objective",
    "interpolant",
    "times",
)  # config groups that a model's keywords may name components of


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
        told = (
            f"{first_line(error)}"
            if isinstance(error, ValueError | TypeError)
            else f"{type(error).__name__}: {first_line(error)}"
        )
        raise ValueError(
            f"These keywords do not fit {blueprint.component}: {told}. Was it made by another version of ldbench?"
        ) from error
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
        return Normalizer(**told)
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
            [
                f"{key} {given[key]}, expected {shape}"
                for key, shape in expected.items()
                if given.get(key, shape) != shape
            ],
        ),
        (
            "of another kind",
            [f"{key} {value.dtype}" for key, value in state.items() if key in ours and kind(value) != kind(ours[key])],
        ),
        ("not finite", [key for key, value in state.items() if not (value.is_meta or torch.isfinite(value).all())]),
    ]
    told = [f"{len(keys)} {what} (first: {keys[0]})" for what, keys in faults if keys]
    if told:
        raise ValueError(
            f"These weights do not fit {type(model).__name__}: {'; '.join(told)}. Check that model and file belong together."
        )


def kind(value: Tensor) -> tuple[bool, bool, bool]:
    """What a tensor's numbers are: floating point, complex, or truth values; whole where none of these."""
    return value.is_floating_point(), value.is_complex(), value.dtype == torch.bool


def save(
    model: nn.Module,
    folder: Path,
    blueprint: Blueprint,
    *,
    recipe: Mapping[str, Any],
    digest: str,
    provenance: Mapping[str, Any],
) -> None:
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
        write_json(
            building / MANIFEST, {"schema": SCHEMA, "name": folder.name, "digest": digest, "files": files, **provenance}
        )
        if folder.exists():  # left over from a version that could not be completed
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def load(path: str | Path, *, searchpath: Sequence[str] = ()) -> nn.Module:
    """The model of an artifact folder, in eval mode on the CPU.

    Raises ValueError for a folder that is missing, incomplete or altered, and for components that no trusted config group names.
    """
    folder = hub.local(path)
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


def name_of(folder: Path) -> str:
    """What an artifact is called, wherever it was copied to. Raises ValueError for a name that is not its own."""
    manifest = read_manifest(folder)
    name = manifest.get("name", folder.absolute().name)  # manifests had none at first
    if "name" in manifest and not (
        isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) and name.endswith(f"-{manifest['digest'][:8]}")
    ):
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
    missing = [
        key for key, kind in wanted.items() if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind)
    ]
    if missing:
        told = f"{missing[0]} is missing, or no {wanted[missing[0]].__name__}"
        raise ValueError(
            f"{folder / MANIFEST} is no manifest of an artifact ({told}). Train it again, or copy it again."
        )
    named, schema = set(manifest["files"]), manifest["schema"]
    if schema != SCHEMA:
        raise ValueError(
            f"{folder} has schema {schema}, and this version of ldbench reads {SCHEMA}. Use the version that made it, or a newer one."
        )
    if named != {WEIGHTS, CONFIG}:
        raise ValueError(
            f"{folder / MANIFEST} names {sorted(named)}. Expected {[CONFIG, WEIGHTS]}: train it again, or copy it again."
        )
    return manifest


def read_config(folder: Path) -> dict[str, Any]:
    """What an artifact is made of: its group, component, keywords and recipe. Raises ValueError, naming the file, for anything else."""
    described = read_json(folder / CONFIG)
    wanted = {"group": str, "component": str, "keywords": dict, "recipe": dict}
    missing = [
        key
        for key, kind in wanted.items()
        if not isinstance(described, dict) or not isinstance(described.get(key), kind)
    ]
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
