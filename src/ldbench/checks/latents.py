"""Checks of stored latents: whether every store is complete, by the checksums of all bytes."""

from pathlib import Path
from typing import TYPE_CHECKING

from ldbench.checks.finding import Finding, counted, quoted, size
from ldbench.checks.storage import HIDDEN, inside, num_bytes, refusal

if TYPE_CHECKING:
    from ldbench.data.latents.manifest import Contents

AGAIN = "python -m ldbench.run job=encode, with the overrides it had"


def check_latents(root: Path) -> list[Finding]:
    """Whether every store of latents is complete, by the checksums of all its bytes, and which leftovers it has."""
    folders = [folder for folder in inside(root) if folder.is_dir() and not folder.name.startswith(HIDDEN)]
    faults = {folder: fault(folder) for folder in folders}
    complete = [folder for folder, finding in faults.items() if finding is None]
    problems = [
        *(finding for finding in faults.values() if finding),
        *(finding for folder in complete for finding in leftover(folder)),
    ]
    where = f"in {root.absolute()}"
    summary = (
        f"{counted(len(complete), 'store')} {where}, {size(sum(map(num_bytes, complete)))}, as their manifests say"
        if complete
        else f"none {where}"
    )
    return [*([Finding("ok", "latents", summary)] if complete or not problems else []), *problems]


def describe_address(address: str) -> list[Finding]:
    """The message about stores at an address: they are verified when they are read."""
    return [Finding("ok", "latents", f"at {address}, not looked at: they are verified when they are read")]


def check_origins(artifacts: Path, root: Path) -> list[Finding]:
    """Whether the tokenizer of every complete store below `root` exists: no other tokenizer can use its latents."""
    known = {key for folder in inside(artifacts / "tokenizers") if (key := content_key_of(folder))}
    findings = []
    for folder in inside(root):
        contents = contents_of(folder)
        if contents is not None and contents.tokenizer_key not in known:
            tokenizer = f"{contents.tokenizer} ({contents.tokenizer_key[:16]})"
            cure = (
                f"Copy that artifact to {quoted(artifacts / 'tokenizers')}, or remove the store: rm -r {quoted(folder)}"
            )
            findings.append(
                Finding(
                    "warning", "latents", f"{folder} is of the tokenizer {tokenizer}, which does not exist here", cure
                )
            )
    return findings


def content_key_of(folder: Path) -> str | None:
    """The content key of an artifact, or None if it is not valid, which another check finds."""
    from ldbench.artifacts import store

    try:
        return store.content_key(folder)
    except (ValueError, OSError):
        return None


def contents_of(folder: Path) -> "Contents | None":
    """The contents of a store, or None if it is not valid, which another check finds."""
    from ldbench.data.latents import manifest

    try:
        return manifest.read_manifest(folder).contents
    except (ValueError, OSError):
        return None


def fault(folder: Path) -> Finding | None:
    """What is wrong with a store, or None."""
    from ldbench.data.latents import manifest

    if not manifest.is_complete(folder):
        cure = f"Complete it: {AGAIN}. Or remove it: rm -r {quoted(folder)}"
        shards = counted(len(list(folder.glob("shard-*.json"))), "shard")
        return Finding(
            "warning",
            "latents",
            f"{folder} was interrupted after {shards}, or partly copied: it has no {manifest.MANIFEST}",
            cure,
        )
    try:
        contents = manifest.read_manifest(folder)
        manifest.validate_sizes(folder, contents)
        manifest.validate_checksums(folder, contents)
    except (ValueError, OSError) as error:
        cure = f"Copy it again, or encode again: rm -r {quoted(folder)}, then {AGAIN}"
        return Finding("broken", "latents", refusal(folder, error).partition(". Remove ")[0], cure)
    return None


def leftover(folder: Path) -> list[Finding]:
    """The files that only building a store needed, in a complete one."""
    from ldbench.data.latents.writing import leftovers

    spare = sorted(leftovers(folder))
    if not spare:
        return []
    what, path = f"{folder} has {counted(len(spare), 'file')} that only building it needed", quoted(folder)
    return [
        Finding(
            "warning",
            "latents",
            what,
            f"Unless it is being built right now: rm -rf {path}/plan.json {path}/shard-*.json {path}/.*.tmp",
        )
    ]
