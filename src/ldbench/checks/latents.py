"""Checks of stored latents: whether every store is whole, to the last byte."""

from pathlib import Path
from typing import TYPE_CHECKING

from ldbench.checks.finding import Finding, counted, quoted, size
from ldbench.checks.storage import LATENTS, PRIVATE, inside, refusal, weight

if TYPE_CHECKING:
    from ldbench.data.latents.manifest import Contents

AGAIN = "python -m ldbench.run job=encode, with the overrides it had"


def check_latents(root: Path) -> list[Finding]:
    """Whether every store of latents is whole, by the sums of all its bytes, and what was left over in them."""
    folders = [folder for folder in inside(root) if folder.is_dir() and not folder.name.startswith(PRIVATE)]
    found = {folder: fault(folder) for folder in folders}
    sound = [folder for folder, finding in found.items() if finding is None]
    problems = [
        *(finding for finding in found.values() if finding),
        *(finding for folder in sound for finding in leftover(folder)),
    ]
    where = f"in {root.absolute()}"
    whole = (
        f"{counted(len(sound), 'store')} {where}, {size(sum(map(weight, sound)))}, as their manifests say"
        if sound
        else f"none {where}"
    )
    return [*([Finding("ok", "latents", whole)] if sound or not problems else []), *problems]


def check_origins(artifacts: Path) -> list[Finding]:
    """Whether the tokenizer of every complete store is here: another one's latents are of no use to it."""
    here = {digest for folder in inside(artifacts / "tokenizers") if (digest := digest_of(folder))}
    findings = []
    for folder in inside(artifacts / LATENTS):
        contents = contents_of(folder)
        if contents is not None and contents.tokenizer_digest not in here:
            whose = f"{contents.tokenizer} ({contents.tokenizer_digest[:8]})"
            cure = f"Copy that artifact to {quoted(artifacts / 'tokenizers')}, or give the store up: rm -r {quoted(folder)}"
            findings.append(
                Finding("warning", "latents", f"{folder} is of the tokenizer {whose}, which is not here", cure)
            )
    return findings


def digest_of(folder: Path) -> str | None:
    """The digest of an artifact, or None where there is no sound one: another check says so."""
    from ldbench.artifacts import store

    try:
        return store.read_manifest(folder)["digest"]
    except (ValueError, OSError):
        return None


def contents_of(folder: Path) -> "Contents | None":
    """What a store is of, or None where there is no sound one: another check says so."""
    from ldbench.data.latents import manifest

    try:
        return manifest.read_manifest(folder).contents
    except (ValueError, OSError):
        return None


def fault(folder: Path) -> Finding | None:
    """What is wrong with a store, or nothing."""
    from ldbench.data.latents import manifest

    if not manifest.is_complete(folder):
        cure = f"Make it whole: {AGAIN}. Or give it up: rm -r {quoted(folder)}"
        begun = counted(len(list(folder.glob("shard-*.json"))), "shard")
        return Finding(
            "warning",
            "latents",
            f"{folder} was interrupted after {begun}, or copied in part: it has no {manifest.MANIFEST}",
            cure,
        )
    try:
        told = manifest.read_manifest(folder)
        manifest.validate_sizes(folder, told)
        manifest.validate_checksums(folder, told)
    except (ValueError, OSError) as error:
        cure = f"Copy it again, or encode again: rm -r {quoted(folder)}, then {AGAIN}"
        return Finding("broken", "latents", refusal(folder, error).partition(". Remove ")[0], cure)
    return None


def leftover(folder: Path) -> list[Finding]:
    """What only the making of a complete store needed."""
    from ldbench.data.latents.writing import leftovers

    spare = sorted(leftovers(folder))
    if not spare:
        return []
    what, place = f"{folder} keeps {counted(len(spare), 'file')} that only its making needed", quoted(folder)
    return [
        Finding(
            "warning",
            "latents",
            what,
            f"Unless it is being made right now: rm -rf {place}/plan.json {place}/shard-*.json {place}/.*.tmp",
        )
    ]
