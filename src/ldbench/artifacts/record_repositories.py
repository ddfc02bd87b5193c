"""Dataset repositories of records on the Hugging Face hub: reading them, and proposing one's own by a pull request.

Records are in the folder `records` of a repository, or in the one that is named, as in a folder on disk.
"""

import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ldbench.artifacts.hub import describe_error, split_id
from ldbench.results import per_image, store, validation
from ldbench.results.records import Record, path_of

PREFIX = "hf://datasets/"
FOLDER = "records"  # of a repository in which none is named
WORKERS = 8  # downloads at a time
FILE = re.compile(r"(?P<record>[a-z][a-z0-9_]*-[0-9a-f]+)(?P<rest>\.json|/[^/]+\.png|/per_image\.safetensors)")


@dataclass(frozen=True)
class RecordRepository:
    """A dataset repository, its folder of records, and the revision that was asked for."""

    repo: str
    folder: str
    revision: str | None

    def __str__(self) -> str:
        folder = "" if self.folder == FOLDER else f"/{self.folder}"
        return f"{PREFIX}{self.repo}{folder}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Listing:
    """The files of a repository's folder of records at one commit."""

    commit: str
    sizes: dict[str, int]  # bytes by path in the folder


@dataclass(frozen=True)
class Fetched:
    """Records of a repository on this machine."""

    folder: Path
    origin: str  # the repository with the commit
    num_known: int  # records that were not fetched, since they are here


@dataclass(frozen=True)
class Proposal:
    """What was sent for review."""

    sent: Sequence[Record]
    url: str | None  # of the pull request; None if nothing was sent
    num_there: int  # records that the repository has already
    num_open: int  # records in one's own open pull requests


def is_repository(name: str) -> bool:
    """Whether a name is that of a dataset repository on the hub, not of a folder here."""
    return name.startswith("hf://")


def parse(name: str) -> RecordRepository:
    """The repository of `hf://datasets/owner/name[/folder][@revision]`. Raises ValueError for another form."""
    if not name.startswith(PREFIX):
        raise ValueError(
            f"Records are in dataset repositories, {PREFIX}owner/name[/folder][@revision]; got {name!r}. "
            "Models are in others."
        )
    repo, folder, revision = split_id(name.removeprefix(PREFIX))
    return RecordRepository(repo, folder or FOLDER, revision)


def merge(name: str, ours: Path) -> tuple[Sequence[Record], str]:
    """Copies the records of a repository to a folder, except those that exist, as `store.merge` does.

    Returns the new records, and the repository with the commit that they are of. What exists is not downloaded.
    Raises ValueError, with what to do, if the repository cannot be read or has no records, and for invalid ones; then
    none is copied.
    """
    known = {path.stem for path in store.record_files(ours)}
    with fetched(name, known=known) as copy:
        if copy.num_known and not store.record_files(copy.folder):
            return [], copy.origin
        try:
            return store.merge(copy.folder, ours), copy.origin
        except ValueError as error:
            raise ValueError(str(error).replace(f"{copy.folder}", copy.origin)) from error


@contextmanager
def fetched(name: str, *, known: Collection[str] = ()) -> Iterator[Fetched]:
    """The records of a repository in a scratch folder, without the `known` ones, by file name without `.json`.

    What is no record, no sheet and no values of single images, or is larger than those may be, is not downloaded; of
    records that are too large, an error says so. Raises ValueError, with what to do, if the repository cannot be read.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    place = parse(name)
    with tempfile.TemporaryDirectory(prefix="ldbench-") as scratch:
        silent = are_progress_bars_disabled()
        disable_progress_bars()  # one for each of thousands of small files
        try:
            listing = list_files(place)
            origin = f"{RecordRepository(place.repo, place.folder, listing.commit)}"
            wanted = [path for path in wanted_files(listing, origin) if path.split("/")[0].split(".")[0] not in known]
            load = partial(hf_hub_download, place.repo, repo_type="dataset", revision=listing.commit, local_dir=scratch)
            with ThreadPoolExecutor(WORKERS) as pool:
                list(pool.map(load, [f"{place.folder}/{path}" for path in wanted]))
        except UnreadableRepositoryError:
            raise
        except Exception as error:  # offline, unknown, gated: the hub has an error for each
            raise ValueError(
                f"{place} cannot be read from the Hugging Face hub: {describe_error(error)} "
                "Or give a folder of records instead."
            ) from error
        finally:
            if not silent:
                enable_progress_bars()
        num_known = sum(path.removesuffix(".json") in known for path in listing.sizes)
        yield Fetched(Path(scratch) / place.folder, origin, num_known)


class UnreadableRepositoryError(ValueError):
    """A repository whose files are no records that could be read."""


def list_files(place: RecordRepository) -> Listing:
    """The files of a repository's folder of records, by their paths in it, at the revision or the newest commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    api = HfApi()
    commit = str(api.dataset_info(place.repo, revision=place.revision).sha)
    try:
        entries = list(
            api.list_repo_tree(place.repo, place.folder, recursive=True, revision=commit, repo_type="dataset")
        )
    except EntryNotFoundError:  # no such folder
        return Listing(commit, {})
    sizes = {entry.path: getattr(entry, "size", None) for entry in entries}
    start = f"{place.folder}/"
    return Listing(
        commit,
        {path.removeprefix(start): size for path, size in sizes.items() if size is not None and path.startswith(start)},
    )


def wanted_files(listing: Listing, origin: str) -> list[str]:
    """The records of a listing, and what stands beside them. Raises UnreadableRepositoryError for a record that is too
    large.
    """
    wanted = []
    for path, size in listing.sizes.items():
        found = FILE.fullmatch(path)
        if found is None:
            continue
        if found["rest"] == ".json" and size > validation.LARGEST:
            raise UnreadableRepositoryError(
                f"{origin}: {path} has {size} bytes, and a record has at most {validation.LARGEST}. "
                "Ask for a valid one."
            )
        largest = per_image.LARGEST if found["rest"].endswith(per_image.FILE) else store.LARGEST
        if size <= largest and (found["rest"] == ".json" or f"{found['record']}.json" in listing.sizes):
            wanted.append(path)
    return wanted


def propose(records: Sequence[Record], folder: Path, name: str) -> Proposal:
    """Sends records of a folder, with what stands beside them, to a repository as one pull request for review.

    Those that the repository has, or that are in one's own open pull requests, are not sent, and no file is ever
    replaced. Raises ValueError, with what to do, if the hub refuses them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    place = parse(name)
    if place.revision is not None:
        raise ValueError(f"push={name} names a revision, and records are proposed for the main branch. Leave it out.")
    refused = f"{place} cannot be pushed to on the Hugging Face hub:"
    if get_token() is None:
        raise ValueError(f"{refused} no token is set. Run `hf auth login`, or set HF_TOKEN.")
    api = HfApi()
    try:
        listing = list_files(place)
        proposed = open_files(place)
        names = {path_of(folder, record.job, record.id).name: record for record in records}
        there, waiting = names.keys() & listing.sizes.keys(), names.keys() & proposed - listing.sizes.keys()
        new = [record for file, record in names.items() if file not in there | waiting]
        if not new:
            return Proposal([], None, len(there), len(waiting))
        files = [path for record in new for path in store.files_of(folder, record)]
        paths = {path.relative_to(folder).as_posix(): path for path in files}
        commit = api.create_commit(
            place.repo,
            [
                CommitOperationAdd(f"{place.folder}/{path}", str(file))
                for path, file in paths.items()
                if path not in listing.sizes
            ],
            commit_message=f"Add {len(new)} record{'' if len(new) == 1 else 's'}",
            commit_description="Sent by `python -m ldbench.leaderboard push=...`. To review them: "
            f"`python -m ldbench.leaderboard validate={place}@REVISION`, with the revision of this pull request.",
            repo_type="dataset",
            create_pr=True,
            parent_commit=listing.commit,
        )
        return Proposal(new, commit.pr_url or str(commit.commit_url), len(there), len(waiting))
    except Exception as error:
        raise ValueError(f"{refused} {describe_error(error)}") from error


def open_files(place: RecordRepository) -> set[str]:
    """The files of the folder of records in one's own open pull requests."""
    from huggingface_hub import HfApi

    api = HfApi()
    mine = api.get_repo_discussions(
        place.repo,
        author=api.whoami()["name"],
        discussion_type="pull_request",
        discussion_status="open",
        repo_type="dataset",
    )
    revisions = [f"refs/pr/{request.num}" for request in mine]
    return {
        path
        for revision in revisions
        for path in list_files(RecordRepository(place.repo, place.folder, revision)).sizes
    }
