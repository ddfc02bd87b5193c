"""Artifacts: a model's weights and the config that builds it, one folder each, either complete or absent.

A folder `<name>-<digest>` holds `weights.safetensors`, `config.json`, of a generator further weight averages, and,
written last, `manifest.json` with the checksums of all.
"""

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldbench.artifacts import hub
from ldbench.artifacts.averages import KEY as AVERAGES
from ldbench.artifacts.averages import average_path, stored_averages, verify_averages
from ldbench.artifacts.build_limit import BuildLimit
from ldbench.artifacts.weights import MANIFEST, read_file
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.latent import LatentSpec
from ldbench.core.latent_stats import LatentStats
from ldbench.core.normalizer import Normalizer
from ldbench.core.tokenizer import Tokenizer
from ldbench.io.files import digest as digest
from ldbench.io.files import file_digest, read_json, write_json
from ldbench.io.safe_load import first_line, validated_tensors
from ldbench.io.safetensors_io import write_tensors

log = logging.getLogger(__name__)

SCHEMA = 1
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
PARTS = ("backbone", "objective", "interpolant", "times")  # config groups whose components a model's keywords may name


@dataclass(frozen=True)
class Blueprint:
    """The component and keywords of a model as plain data: enough to build it, and nothing that runs foreign code."""

    group: str  # a config group, such as "tokenizer"
    component: str  # an option of that group
    keywords: Mapping[str, Any]  # the constructor's; a latent as plain numbers
    latent_stats: LatentStats | None = None  # of a tokenizer whose authors state them


def build(blueprint: Blueprint, state: Mapping[str, Tensor], *, registry: Registry = Registry()) -> nn.Module:
    """The model of a blueprint with these weights, in eval mode. Raises ValueError unless names and shapes match."""
    constructor = registry.component(blueprint.group, blueprint.component)
    try:
        with BuildLimit(state):
            model = constructor(**build_keywords(blueprint.keywords, registry))
    except Exception as error:  # untrusted keywords can make a constructor fail in any way
        if isinstance(error, ValueError) and str(error).endswith((".", "?")):  # the component's own sentence
            raise
        message = first_line(error)
        if not isinstance(error, ValueError | TypeError):
            message = f"{type(error).__name__}: {message}"
        raise ValueError(
            f"These keywords do not fit {blueprint.component}: {message}. "
            "Was the artifact written by another version of ldbench?"
        ) from error
    validate_state(model, state)
    model.load_state_dict(state)
    if blueprint.latent_stats is not None:
        if not isinstance(model, Tokenizer):
            raise ValueError(f"Statistics of latents belong to a tokenizer, and this is a {type(model).__name__}.")
        blueprint.latent_stats.normalizer(model.latent.channels)  # refuses those of other channels
        model.latent_stats = blueprint.latent_stats
    return model.eval()


def build_keywords(keywords: Mapping[str, Any], registry: Registry = Registry()) -> dict[str, Any]:
    """Keywords with plain data replaced by objects: a latent, a normalizer, and parts that name their component.

    The key of a part is its config group, as in `{"interpolant": {"component": "linear"}}`; a part may contain parts.
    Raises ValueError for a component that its group does not have: no other code is ever run.
    """
    return {name: build_value(name, value, registry) for name, value in keywords.items()}


def build_value(name: str, value: Any, registry: Registry) -> Any:
    """The value of one keyword, see `build_keywords`."""
    if not isinstance(value, Mapping):
        return value
    if name == "latent":
        return LatentSpec.from_dict(value)
    if name == "normaliser":
        return Normalizer(**value)
    if "component" not in value:
        return value
    if name not in PARTS:
        raise ValueError(f"{name} is no part of a model. Known: {', '.join(PARTS)}.")
    rest = {key: inner for key, inner in value.items() if key != "component"}
    return registry.component(name, value["component"])(**build_keywords(rest, registry))


def validate_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming the first tensors that are missing, unknown, of wrong shape or dtype, or not finite."""
    ours = model.state_dict()
    expected = {key: tuple(value.shape) for key, value in ours.items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    faults = [
        ("missing", sorted(expected.keys() - given.keys())),
        ("unknown", sorted(given.keys() - expected.keys())),
        (
            "of another shape",
            [
                f"{key} {given[key]}, expected {shape}"
                for key, shape in expected.items()
                if given.get(key, shape) != shape
            ],
        ),
        (
            "of another dtype",
            [
                f"{key} {value.dtype}"
                for key, value in state.items()
                if key in ours and dtype_kind(value) != dtype_kind(ours[key])
            ],
        ),
        ("not finite", [key for key, value in state.items() if not (value.is_meta or torch.isfinite(value).all())]),
    ]
    messages = [f"{len(keys)} {what} (first: {keys[0]})" for what, keys in faults if keys]
    if messages:
        raise ValueError(
            f"These weights do not fit {type(model).__name__}: {'; '.join(messages)}. "
            "Check that model and file belong together."
        )


def dtype_kind(value: Tensor) -> tuple[bool, bool, bool]:
    """Whether a tensor is of floating point, complex, or boolean dtype; an integer tensor is none of these."""
    return value.is_floating_point(), value.is_complex(), value.dtype == torch.bool


def save(
    model: nn.Module,
    folder: Path,
    blueprint: Blueprint,
    *,
    recipe: Mapping[str, Any],
    digest: str,
    provenance: Mapping[str, Any],
    averages: Mapping[float, Path] = {},  # decay -> file of a generator's backbone, which is copied
) -> None:
    """Writes an artifact folder atomically: complete or not at all. The caller holds its `building_lock`.

    `recipe` is what the digest covers, `provenance` what else is recorded (environment, times).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".building-{folder.name}")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
    try:
        building.mkdir()
        write_tensors(model.state_dict(), building / WEIGHTS)
        model_config = {
            "group": blueprint.group,
            "component": blueprint.component,
            "keywords": dict(blueprint.keywords),
        }
        if blueprint.latent_stats is not None:
            model_config["latent_stats"] = blueprint.latent_stats.to_dict()
        write_json(building / CONFIG, {"schema": SCHEMA, **model_config, "recipe": recipe})
        files = {name: file_digest(building / name) for name in (WEIGHTS, CONFIG)}
        manifest = {"schema": SCHEMA, "name": folder.name, "digest": digest, "files": files, **provenance}
        for decay, file in averages.items():
            copied = average_path(building, decay)
            copied.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copied)
            manifest.setdefault(AVERAGES, {})[str(decay)] = file_digest(copied)
        write_json(building / MANIFEST, manifest)
        if folder.exists():  # left over from a build that was not completed
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def copy(source: Path, folder: Path) -> None:
    """Copies an artifact atomically: complete or not at all. The caller holds the `building_lock` of `folder`.

    Raises ValueError for a source that is incomplete or altered.
    """
    verify(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".building-{folder.name}")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
    try:
        shutil.copytree(source, building, copy_function=shutil.copyfile)
        if folder.exists():  # left over from a build that was not completed
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def load(path: str | Path, *, registry: Registry = Registry()) -> nn.Module:
    """The model of an artifact folder, in eval mode on the CPU.

    Raises ValueError for a folder that is missing, incomplete or altered, and for components that no trusted config
    group names.
    """
    folder = hub.local(path)
    verify(folder)
    model_config = read_config(folder)
    try:
        blueprint = Blueprint(
            model_config["group"], model_config["component"], model_config["keywords"], latent_stats_of(model_config)
        )
        state = validated_tensors(read_file(folder / WEIGHTS), (folder / WEIGHTS).stat().st_size)
        return build(blueprint, state, registry=registry)
    except ValueError as error:
        raise ValueError(f"No model can be built from {folder}: {error}") from error


def load_average(path: str | Path, decay: float, *, registry: Registry = Registry()) -> Generator:
    """The generator of an artifact with another of its weight averages, in eval mode on the CPU.

    Raises ValueError as `load`, for an artifact of something else, and for a decay that is not stored.
    """
    folder = hub.local(path)
    model = load(folder, registry=registry)
    if not isinstance(model, Generator):
        raise ValueError(f"{folder} is a {type(model).__name__}: only generators have several weight averages.")
    stored = stored_averages(folder, read_manifest(folder))
    if decay not in stored:
        raise ValueError(
            f"{folder} holds no average with the decay {decay}; beside its exported weights it holds "
            f"{sorted(stored) or 'none'}. Choose one of these, or train with it in generator.ema_decays."
        )
    file = average_path(folder, decay)
    try:
        state = validated_tensors(read_file(file), file.stat().st_size)
        validate_state(model.backbone, state)
    except ValueError as error:
        raise ValueError(f"{file} holds no average of its backbone: {error}") from error
    model.backbone.load_state_dict(state)
    return model


def verify(folder: Path) -> None:
    """Raises ValueError unless every file of an artifact has the checksum of its manifest."""
    manifest = read_manifest(folder)
    verify_averages(folder, manifest)
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file() or file_digest(folder / name) != expected:
            raise ValueError(
                f"{folder / name} does not match its manifest: it was altered or truncated. "
                f"Remove {folder} and run the command that built it again, or copy it again."
            )


def name_of(folder: Path) -> str:
    """The name of an artifact, wherever it was copied to. Raises ValueError for a name that does not fit its digest."""
    manifest = read_manifest(folder)
    name = manifest.get("name", folder.absolute().name)  # early manifests hold none
    if "name" in manifest and not (
        isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) and name.endswith(f"-{manifest['digest'][:8]}")
    ):
        raise ValueError(
            f"{folder / MANIFEST} names the artifact {name!r}. "
            f"Expected letters and digits, then -{manifest['digest'][:8]}: copy it again."
        )
    return name


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact. Raises ValueError for a folder without a readable one."""
    if not is_complete(folder):
        siblings = sorted(p.name for p in folder.parent.glob("*") if is_complete(p)) if folder.parent.is_dir() else []
        hint = f" Artifacts in the same folder: {', '.join(siblings)}." if siblings else ""
        raise ValueError(f"{folder} is no complete artifact: it has no {MANIFEST}.{hint}")
    manifest = read_json(folder / MANIFEST)
    mistake = find_missing_key(manifest, {"files": dict, "schema": int, "digest": str})
    if mistake:
        raise ValueError(
            f"{folder / MANIFEST} is no manifest of an artifact ({mistake}). Train it again, or copy it again."
        )
    files, schema = set(manifest["files"]), manifest["schema"]
    if schema != SCHEMA:
        raise ValueError(
            f"{folder} has schema {schema}, and this version of ldbench reads {SCHEMA}. "
            "Use the version that wrote it, or a newer one."
        )
    if files != {WEIGHTS, CONFIG}:
        raise ValueError(
            f"{folder / MANIFEST} lists {sorted(files)}. Expected {[CONFIG, WEIGHTS]}: train or copy it again."
        )
    return manifest


def content_key(folder: Path) -> str:
    """The sha256 of an artifact's digest and weights: one recipe gives other weights on another machine."""
    manifest = read_manifest(folder)
    return digest({"recipe": manifest["digest"], "weights": manifest["files"][WEIGHTS]})


def read_config(folder: Path) -> dict[str, Any]:
    """An artifact's group, component, keywords and recipe. Raises ValueError, naming the file, for anything else."""
    model_config = read_json(folder / CONFIG)
    mistake = find_missing_key(model_config, {"group": str, "component": str, "keywords": dict, "recipe": dict})
    if mistake:
        raise ValueError(f"{folder / CONFIG} describes no artifact ({mistake}). Train it again, or copy it again.")
    return model_config


def latent_stats_of(model_config: Mapping[str, Any]) -> LatentStats | None:
    """A tokenizer's own statistics of its latents in an artifact's config. Raises ValueError for what are none."""
    content = model_config.get("latent_stats")
    return None if content is None else LatentStats.from_dict(content)


def find_missing_key(content: Any, expected: Mapping[str, type]) -> str | None:
    """A description of the first expected key that is missing or of another type; None if there is none."""
    for key, kind in expected.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            return f"{key} is missing, or no {kind.__name__}"
    return None


def is_complete(folder: Path) -> bool:
    """Whether an artifact exists and is complete: its manifest is written last."""
    return (folder / MANIFEST).is_file()
