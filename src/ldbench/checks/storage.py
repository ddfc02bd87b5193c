"""Checks of what is stored: artifacts, their checkpoints, and records."""

import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from ldbench.checks.finding import Finding, counted, first_line, quoted, size
from ldbench.config.compose import Registry

WRITING = 60  # seconds that a record may take to be written
PRIVATE = "."  # what begins so is a lock or unfinished: no artifact, no record
LATENTS = "latents"  # stores, which `checks.latents` looks at
WHOLE = {("generator", "generator")}  # what is put together of components
BUILDING = ".building-"  # an artifact before it is whole


def check_artifacts(artifacts: Path, runs: Path, registry: Registry = Registry()) -> list[Finding]:
    """Whether every artifact is whole, and which checkpoints sound ones no longer need."""
    kinds = [
        kind
        for kind in inside(artifacts)
        if kind.is_dir() and kind.name != LATENTS and not kind.name.startswith(PRIVATE)
    ]
    folders = [folder for kind in kinds for folder in inside(kind) if folder.is_dir()]
    found = {folder: fault(folder, registry) for folder in folders if not folder.name.startswith(PRIVATE)}
    sound = [folder for folder, finding in found.items() if finding is None]
    where = f"in {artifacts.absolute()}"
    whole = (
        f"{counted(len(sound), 'artifact')} {where}, {size(sum(map(weight, sound)))}, as their manifests say"
        if sound
        else f"none {where}"
    )
    problems = [
        *(finding for finding in found.values() if finding),
        *(leftover(folder) for folder in folders if folder.name.startswith(BUILDING)),
    ]
    fine = [Finding("ok", "artifacts", whole)] if sound or not problems else []
    return [*fine, *problems, *spare_checkpoints(runs, sound)]


def check_records(folder: Path) -> list[Finding]:
    """Whether every record is sound, field by field, and whether there is anything among them that is none."""
    from ldbench.results.validation import read_checked

    files = [path for path in inside(folder) if path.suffix == ".json" and not path.name.startswith(PRIVATE)]
    problems = []
    for path in files:
        try:
            read_checked(path)
        except (ValueError, OSError) as error:
            told = str(error).partition("\n")[0].rstrip(".")
            problems.append(
                Finding("broken", "records", told, f"Copy it again, or move it out of {folder}: {moved(path)}")
            )
    readable = len(files) - len(problems)
    problems += [
        foreign(path)
        for path in inside(folder)
        if path not in files and not is_ours(path, {file.stem for file in files})
    ]
    what = f"{counted(readable, 'record')} in {folder.absolute()}" if readable else f"none in {folder.absolute()}"
    return [*([Finding("ok", "records", what)] if readable or not problems else []), *problems]


def is_ours(path: Path, stems: Set[str]) -> bool:
    """Whether something beside records belongs there: the figures of one, or one that is being written right now."""
    fresh = path.name.startswith(PRIVATE) and path.is_file() and time.time() - path.stat().st_mtime < WRITING
    return fresh or (path.is_dir() and path.name in stems)


def foreign(path: Path) -> Finding:
    """What is to be said of something among records that is none."""
    if path.name.startswith(PRIVATE) and path.name.endswith(".tmp"):
        return Finding(
            "warning",
            "records",
            f"{path} was left by a process that was stopped while writing a record",
            f"rm {quoted(path)}",
        )
    what = "is a folder without its record" if path.is_dir() else "is no record"
    return Finding("warning", "records", f"{path} {what}", f"Move it out of {path.parent}: {moved(path)}")


def moved(path: Path) -> str:
    """How to move something out of a folder."""
    return f"mv {quoted(path)} {quoted(path.absolute().parent.parent)}/"


def check_downloads() -> list[Finding]:
    """Whether the weights of measurements, where they are here, are whole; those that are not come on first use."""
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
                    f"{path} ({name}) was altered or cut short: its sum is not the one in its name",
                    cure,
                )
            )
        elif not path.is_file():
            cure = f"They are downloaded on first use. Without a network, put {url} there"
            findings.append(Finding("ok", "weights", f"{name} is not here: {path}", cure))
    return findings or [Finding("ok", "weights", f"{' and '.join(weights.DOWNLOADS)} are here, and whole")]


def leftover(folder: Path) -> Finding:
    """What is to be said about a folder that was to become an artifact."""
    cure = f"Unless a training is storing its result right now: rm -r {quoted(folder)}"
    return Finding(
        "warning", "artifacts", f"{folder} was left by a process that was stopped while storing an artifact", cure
    )


def fault(folder: Path, registry: Registry = Registry()) -> Finding | None:
    """What is wrong with an artifact's folder, or nothing."""
    from ldbench.artifacts import store

    again = builds_again(folder)
    if not store.is_complete(folder):
        cure = f"Make it whole: {again}. Or copy it again, or give it up: rm -r {quoted(folder)}"
        return Finding(
            "warning", "artifacts", f"{folder} has no {store.MANIFEST}: it was interrupted, or copied in part", cure
        )
    cure = f"Copy it again, or build it again: rm -r {quoted(folder)}, then {again}"
    try:
        manifest = store.read_manifest(folder)
        altered = [name for name, expected in manifest["files"].items() if not matches(folder / name, expected)]
    except (ValueError, TypeError, AttributeError, OSError) as error:
        return Finding("broken", "artifacts", refusal(folder, error), cure)
    if altered:
        what = f"{folder}: {' and '.join(altered)} {'is' if len(altered) == 1 else 'are'} not what the manifest says"
        return Finding("broken", "artifacts", what, cure)
    return stranger(folder, registry)


def stranger(folder: Path, registry: Registry) -> Finding | None:
    """What is wrong with the components that an artifact names, or nothing."""
    from ldbench.artifacts import store

    try:
        told = store.read_config(folder)
    except ValueError as error:
        return Finding(
            "broken", "artifacts", refusal(folder, error), f"Copy it again, or give it up: rm -r {quoted(folder)}"
        )
    parts = {
        name: part["component"]
        for name, part in told["keywords"].items()
        if isinstance(part, dict) and "component" in part
    }
    for group, name in {told["group"]: told["component"], **parts}.items():
        if (group, name) not in WHOLE and name not in registry.targets(group):
            cure = f"Name the config folder of the package that it is of: hydra.searchpath=[file://DIR]. Or give it up: rm -r {quoted(folder)}"
            return Finding(
                "broken",
                "artifacts",
                f"{folder} is of the {group} {ascii(name)[:60]}, which no config here names",
                cure,
            )
    return None


def refusal(path: Path, error: Exception) -> str:
    """Why something was not read, in one line that names it."""
    if (
        isinstance(error, ValueError) and error.__cause__ is None
    ):  # a sentence of the reader's own, which names it already
        return str(error).partition("\n")[0]
    return f"{path} cannot be read: {first_line(error.__cause__ or error)}"


def matches(file: Path, expected: str) -> bool:
    """Whether a file is there with these bytes."""
    from ldbench.artifacts import store

    return file.is_file() and store.file_digest(file) == expected


def builds_again(folder: Path) -> str:
    """How to make an artifact anew, as far as its name tells."""
    name = folder.name.rpartition("-")[0]
    known = folder.parent.name == "tokenizers" and name in Registry().options("tokenizer")
    return (
        f"python -m ldbench.train tokenizer={name}, with the overrides it had" if known else "the command that made it"
    )


def spare_checkpoints(runs: Path, sound: Sequence[Path]) -> list[Finding]:
    """The checkpoints that may go, because what they led to is stored; nothing where there are none."""
    spare = [runs / folder.name / "checkpoints" for folder in sound]
    spare = [folder for folder in spare if weight(folder)]
    if not spare:
        return []
    what = (
        f"{size(sum(map(weight, spare)))} of checkpoints may go: their {counted(len(spare), 'artifact')} stand complete"
    )
    some = spare if len(spare) <= 3 else [f"{runs}/NAME/checkpoints"]
    return [Finding("ok", "runs", what, f"To free the space: rm -r {' '.join(map(quoted, some))}")]


def inside(folder: Path) -> Iterator[Path]:
    """What a folder holds, by name; nothing if there is none."""
    yield from sorted(folder.iterdir()) if folder.is_dir() else ()


def weight(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
