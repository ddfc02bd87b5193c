"""Checks of stored things: artifacts, their checkpoints, and records."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldbench.checks.finding import Finding, counted, first_line, quoted, size
from ldbench.io.files import OUTPUT_MARKER, is_running

if TYPE_CHECKING:
    from ldbench.config.compose import Registry

WRITING = 60  # seconds that writing a record may take, on another machine too
HIDDEN = "."  # prefix of locks, scratch files and unfinished artifacts
LOCK = re.compile(r"\..+\.lock")  # of `artifacts.building.building_lock`; it stays after its release
SCRATCH = re.compile(r"\..+\.(\d+)\.tmp")  # of `io.files.atomic_write`, with the id of its process
LATENTS = "latents"  # stores, which `checks.latents` checks
WHOLE = {("generator", "generator")}  # artifacts that are built from several components
BUILDING = ".building-"  # prefix of an artifact that is being stored


def check_artifacts(artifacts: Path, runs: Path, registry: "Registry") -> list[Finding]:
    """Whether every artifact is complete and unaltered, and which checkpoints are no longer needed."""
    kinds = [
        kind
        for kind in inside(artifacts)
        if kind.is_dir() and kind.name != LATENTS and not kind.name.startswith(HIDDEN)
    ]
    folders = [folder for kind in kinds for folder in inside(kind) if folder.is_dir()]
    faults = {folder: fault(folder, registry) for folder in folders if not folder.name.startswith(HIDDEN)}
    complete = [folder for folder, finding in faults.items() if finding is None]
    where = f"in {artifacts.absolute()}"
    summary = (
        f"{counted(len(complete), 'artifact')} {where}, {size(sum(map(num_bytes, complete)))}, as their manifests say"
        if complete
        else f"none {where}"
    )
    problems = [
        *(finding for finding in faults.values() if finding),
        *(leftover(folder) for folder in folders if folder.name.startswith(BUILDING)),
    ]
    ok = [Finding("ok", "artifacts", summary)] if complete or not problems else []
    return [*ok, *problems, *spare_checkpoints(runs, complete)]


def check_records(folder: Path) -> list[Finding]:
    """Whether every record is valid, field by field, and whether anything else is among them."""
    from ldbench.results.validation import read_validated

    files = [path for path in inside(folder) if path.suffix == ".json" and not path.name.startswith(HIDDEN)]
    problems = []
    for path in files:
        try:
            read_validated(path)
        except (ValueError, OSError) as error:
            message = str(error).partition("\n")[0].rstrip(".")
            cure = f"Copy it again, or move it out of {folder}: {move_command(path)}"
            problems.append(Finding("broken", "records", message, cure))
    readable = len(files) - len(problems)
    names = {file.stem for file in files}
    problems += [foreign(path) for path in inside(folder) if path not in files and not is_expected(path, names)]
    where = f"in {folder.absolute()}"
    summary = f"{counted(readable, 'record')} {where}" if readable else f"none {where}"
    return [*([Finding("ok", "records", summary)] if readable or not problems else []), *problems]


def is_expected(path: Path, names: Set[str]) -> bool:
    """Whether something beside records belongs to them: the figures of one, a lock, or a record being written."""
    if path.is_dir():
        return path.name in names
    return is_own_hidden_file(path)


def is_own_hidden_file(path: Path) -> bool:
    """Whether a file is one that ldbench leaves or is writing: a marker, a lock, a recent or active scratch file."""
    if path.name == OUTPUT_MARKER:
        return True
    if not path.name.startswith(HIDDEN) or not path.is_file():
        return False
    scratch = SCRATCH.fullmatch(path.name)
    active = scratch is not None and is_running(scratch[1])
    return LOCK.fullmatch(path.name) is not None or active or time.time() - path.stat().st_mtime < WRITING


def foreign(path: Path) -> Finding:
    """The finding on something among records that does not belong to them."""
    if SCRATCH.fullmatch(path.name):
        what = f"{path} was left by a process that was stopped while writing a record"
        return Finding("warning", "records", what, f"rm {quoted(path)}")
    what = "is a folder without its record" if path.is_dir() else "is no record"
    return Finding("warning", "records", f"{path} {what}", f"Move it out of {path.parent}: {move_command(path)}")


def move_command(path: Path) -> str:
    """The command that moves something out of its folder."""
    return f"mv {quoted(path)} {quoted(path.absolute().parent.parent)}/"


def check_downloads() -> list[Finding]:
    """Whether the downloaded weights of measurements are complete; others are downloaded on first use."""
    from ldbench.artifacts import store, weights

    findings = []
    for name, url in weights.DOWNLOADS.items():
        path = weights.cached(url)
        if path.is_file() and not store.file_digest(path).startswith(path.stem.rpartition("-")[2]):
            cure = f"They are downloaded again on first use: rm {quoted(path)}"
            findings.append(
                Finding(
                    "broken",
                    "weights",
                    f"{path} ({name}) was altered or cut short: its checksum is not the one in its name",
                    cure,
                )
            )
        elif not path.is_file():
            cure = f"They are downloaded on first use. Without a network, copy {url} to this path"
            findings.append(Finding("ok", "weights", f"{name} is not downloaded: {path}", cure))
    return findings or [Finding("ok", "weights", f"{' and '.join(weights.DOWNLOADS)} are downloaded and complete")]


def leftover(folder: Path) -> Finding:
    """The finding on a folder in which an artifact was being stored."""
    cure = f"Unless a training is storing its result right now: rm -r {quoted(folder)}"
    return Finding(
        "warning", "artifacts", f"{folder} was left by a process that was stopped while storing an artifact", cure
    )


def fault(folder: Path, registry: "Registry") -> Finding | None:
    """What is wrong with an artifact's folder, or None."""
    from ldbench.artifacts import store
    from ldbench.artifacts.averages import average_path, stored_averages

    again = build_command(folder)
    if not store.is_complete(folder):
        cure = f"Complete it: {again}. Or copy it again, or remove it: rm -r {quoted(folder)}"
        return Finding(
            "warning", "artifacts", f"{folder} has no {store.MANIFEST}: it was interrupted, or partly copied", cure
        )
    cure = f"Copy it again, or build it again: rm -r {quoted(folder)}, then {again}"
    try:
        manifest = store.read_manifest(folder)
        files = {folder / name: expected for name, expected in manifest["files"].items()}
        files |= {
            average_path(folder, decay): expected for decay, expected in stored_averages(folder, manifest).items()
        }
        altered = [str(file.relative_to(folder)) for file, expected in files.items() if not matches(file, expected)]
    except (ValueError, TypeError, AttributeError, OSError) as error:
        return Finding("broken", "artifacts", refusal(folder, error), cure)
    if altered:
        what = f"{folder}: {' and '.join(altered)} {'is' if len(altered) == 1 else 'are'} not what the manifest says"
        return Finding("broken", "artifacts", what, cure)
    return unknown_component(folder, registry)


def unknown_component(folder: Path, registry: "Registry") -> Finding | None:
    """The finding on an artifact of components that are not known here, which may be of a plug-in; None if all are."""
    from ldbench.artifacts import store
    from ldbench.config.compose import COMPONENT_GROUPS

    try:
        content = store.read_config(folder)
    except ValueError as error:
        return Finding(
            "broken", "artifacts", refusal(folder, error), f"Copy it again, or remove it: rm -r {quoted(folder)}"
        )
    for group, name in [(content["group"], content["component"]), *parts_of(content["keywords"])]:
        if (group, name) in WHOLE:
            continue
        if group not in COMPONENT_GROUPS:
            what = f"{folder} is of the {ascii(group)[:60]} {ascii(name)[:60]}, and there is no such config group"
            return Finding("broken", "artifacts", what, f"Copy it again, or remove it: rm -r {quoted(folder)}")
        if name not in registry.targets(group):
            what = f"{folder} cannot be checked: its {group}, the plug-in {ascii(name)[:60]}, is not known here"
            cure = (
                "Give its config folder, hydra.searchpath=[file://DIR], or install it: pip install PACKAGE. "
                f"If it is not needed: rm -r {quoted(folder)}"
            )
            return Finding("warning", "artifacts", what, cure)
    return None


def parts_of(keywords: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Config group and component of the parts that an artifact's keywords name; a part may contain parts."""
    for name, value in keywords.items():
        if isinstance(value, dict) and "component" in value:
            yield name, str(value["component"])
            yield from parts_of(value)


def refusal(path: Path, error: Exception) -> str:
    """Why a path could not be read, in one line that names it."""
    if isinstance(error, ValueError) and error.__cause__ is None:  # the reader's own message, which names it already
        return str(error).partition("\n")[0]
    return f"{path} cannot be read: {first_line(error.__cause__ or error)}"


def matches(file: Path, expected: str) -> bool:
    """Whether a file exists and has this checksum."""
    from ldbench.artifacts import store

    return file.is_file() and store.file_digest(file) == expected


def build_command(folder: Path) -> str:
    """The command that builds an artifact again, as far as its name allows."""
    from ldbench.config.compose import Registry

    name = folder.name.rpartition("-")[0]
    known = folder.parent.name == "tokenizers" and name in Registry().options("tokenizer")
    return (
        f"python -m ldbench.train tokenizer={name}, with the overrides it had" if known else "the command that made it"
    )


def spare_checkpoints(runs: Path, complete: Sequence[Path]) -> list[Finding]:
    """The finding on checkpoints that may be removed, because their artifact is stored; none without any."""
    spare = [runs / folder.name / "checkpoints" for folder in complete]
    spare = [folder for folder in spare if num_bytes(folder)]
    if not spare:
        return []
    total, artifacts = size(sum(map(num_bytes, spare))), counted(len(spare), "artifact")
    what = f"{total} of checkpoints may be removed: their {artifacts} are complete"
    named = spare if len(spare) <= 3 else [runs / "NAME" / "checkpoints"]
    return [Finding("ok", "runs", what, f"To free the space: rm -r {' '.join(map(quoted, named))}")]


def inside(folder: Path) -> Iterator[Path]:
    """The entries of a folder, by name; none if it does not exist."""
    yield from sorted(folder.iterdir()) if folder.is_dir() else ()


def num_bytes(folder: Path) -> int:
    """The number of bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
