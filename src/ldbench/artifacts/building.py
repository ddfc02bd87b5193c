"""Building artifacts: of several commands that want the same one, one builds it while the others wait and reuse it."""

import errno
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import nn

from ldbench.artifacts.averages import stored_averages
from ldbench.artifacts.store import Blueprint, is_complete, read_manifest, save, verify
from ldbench.results.records import environment, now
from ldbench.runtime.process_group import broadcast_from_leader, is_worker_rank

log = logging.getLogger(__name__)


def get_or_build(
    folder: Path,
    *,
    kind: str,  # how log lines call it, such as "Tokenizer"
    done: str,  # what log lines say of a new one, such as "Trained"
    digest: str,
    recipe: Mapping[str, Any],
    build: Callable[[], tuple[nn.Module, Blueprint]],
    collective: bool,  # whether every process that shares the training calls `build`; else the first one alone
    upstream: Mapping[str, str] = {},  # role -> content key of the artifact whose outputs it is trained on
    averages: Mapping[float, Path] = {},  # decay -> file of another average of a generator, there once it is built
) -> None:
    """Builds an artifact and stores it, unless it exists: then its files are verified.

    Of several commands at once one builds while the others wait. Raises ValueError for a folder that was altered.
    """
    lock = nullcontext() if is_worker_rank() else building_lock(folder)
    with lock:
        if broadcast_from_leader(is_complete(folder)):
            verify(folder)
            validate_upstream(folder, upstream)
            log.info("%s %s exists already: %s", kind, folder.name, folder)
            note_missing_averages(folder, averages)
            return
        started = time.monotonic()
        built = build() if collective or not is_worker_rank() else None
        if built is not None and not is_worker_rank():
            model, blueprint = built
            seconds = time.monotonic() - started
            provenance = {
                "created": now(),
                "seconds": round(seconds, 1),
                "environment": environment(recipe.get("plugins", ())),
            }
            provenance |= {"upstream": dict(upstream)} if upstream else {}
            save(model, folder, blueprint, recipe=recipe, digest=digest, provenance=provenance, averages=averages)
            log.info("%s in %.0f s. %s: %s", done, seconds, kind, folder)
        broadcast_from_leader(True)  # the others continue once it is stored


def note_missing_averages(folder: Path, averages: Collection[float]) -> None:
    """Logs which of these weight averages a complete artifact was stored without: they change none of its numbers."""
    missing = sorted(set(averages) - stored_averages(folder, read_manifest(folder)).keys())
    if missing and not is_worker_rank():
        log.info(
            "It was stored without the averages %s, which job=guidance can search over. To have them, "
            "remove the folder and its run, and train again: all other numbers stay.",
            ", ".join(map(str, missing)),
        )


def validate_upstream(folder: Path, upstream: Mapping[str, str]) -> None:
    """Raises ValueError, naming both, for an artifact that was made on others of the same recipe."""
    made_on = read_manifest(folder).get("upstream", {})
    for role, key in upstream.items():
        if made_on.get(role, key) != key:
            raise ValueError(
                f"{folder} was trained on a {role} of the same recipe and other weights: its {role} has the content "
                f"key {made_on[role][:16]}, and the one here {key[:16]}. Recipes give other weights on another machine."
                f" Bring that {role} here, or train under another paths.root, or remove {folder}."
            )


@contextmanager
def building_lock(folder: Path, *, doing: str | None = "building") -> Iterator[None]:
    """Holds the lock for building an artifact; waits for the process that holds it, and logs what that one is doing.

    The lock is released when its process ends, even if it is killed. All users may take it. Where nothing can be
    written, nothing is built and there is no lock: what exists is read, and what does not exist cannot be stored.
    """
    lock = FileLock(folder.parent / f".{folder.name}.lock", mode=0o666)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            if doing:
                log.info("Another process is %s %s. Waiting for it.", doing, folder.name)
            lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    try:
        yield
    finally:
        lock.release()
