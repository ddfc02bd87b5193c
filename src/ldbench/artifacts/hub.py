"""Artifacts on the Hugging Face hub. Nothing here is called unless a name on the hub was given."""

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

ALLOWED_PATTERNS = ("*.safetensors", "*.json", "*.bin", "*.pt", "*.pth", "*.ckpt")


def local(path: str | Path) -> Path:
    """The given path, or the local copy of `hf://owner/name`, or of a folder and a revision: `hf://owner/name/f@r`."""
    name = str(path)
    return fetch(name.removeprefix("hf://")) if name.startswith("hf://") else Path(name).expanduser()


def fetch(name: str) -> Path:
    """The local copy of `owner/name[/folder][@revision]`. Raises ValueError, with what to do, if there is none."""
    repo, folder, revision = split_id(name)
    patterns = [f"{folder}/{pattern}" if folder else pattern for pattern in ALLOWED_PATTERNS]
    return download(name, repo, revision, patterns) / folder


def fetch_file(name: str, choose: Callable[[Sequence[str], str], str], *, beside: Sequence[str]) -> Path:
    """The local copy of one file of `hf://owner/name[/part][@revision]`, with those of these names beside it.

    `choose` gets the names of all files and the part, and returns one of the names. Nothing else is downloaded.
    Raises ValueError, with what to do, if the repository cannot be fetched.
    """
    from huggingface_hub import HfApi

    name = name.removeprefix("hf://")
    repo, part, revision = split_id(name)
    try:
        listed = HfApi().model_info(repo, revision=revision).siblings or []
        names = [sibling.rfilename for sibling in listed]
    except Exception:  # offline: what was downloaded before is used, and without that the error is raised
        folder = download(name, repo, revision, list(ALLOWED_PATTERNS))
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    chosen = choose(names, part)
    files = [chosen, *(str(PurePosixPath(chosen).with_name(other)) for other in beside)]
    return download(name, repo, revision, [glob.escape(file) for file in files]) / chosen


def download(name: str, repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The local copy of the files of a repository that have these patterns. Raises ValueError, with what to do."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # offline, unknown, gated: the hub has an error for each
        raise ValueError(
            f"hf://{name} cannot be fetched from the Hugging Face hub: {describe_error(error)} "
            "Or give a file or a folder instead."
        ) from error


def split_id(name: str) -> tuple[str, str, str | None]:
    """The repository, the part of it ("" for all) and the revision of `owner/name[/part][@revision]`."""
    path, _, revision = name.partition("@")
    repo, part = "/".join(path.split("/")[:2]), "/".join(path.split("/")[2:]).strip("/")
    validate_repo_id(repo)
    if ".." in part.split("/"):
        raise ValueError(f"hf://{name} leads out of its repository. Name a folder or a file in it.")
    return repo, part, revision or None


def upload(files: Mapping[str, Path | bytes], repo: str, *, private: bool, message: str) -> str:
    """Uploads files to a repository in one commit, creates the repository if needed, and returns the commit's URL.

    `private` applies to a new repository. Raises ValueError, with what to do, if the hub refuses them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    validate_repo_id(repo)
    if get_token() is None:
        raise ValueError(
            f"{repo} cannot be pushed to the Hugging Face hub: no token is set. Run `hf auth login`, or set HF_TOKEN."
        )
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        return str(api.create_commit(repo, operations, commit_message=message).commit_url)
    except Exception as error:
        raise ValueError(f"{repo} cannot be pushed to the Hugging Face hub: {describe_error(error)}") from error


def validate_repo_id(repo: str) -> None:
    """Raises ValueError unless `repo` has the form owner/name."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(
            f"A repository on the hub is owner/name, or owner/name@revision for one of its revisions; got {repo!r}."
        )


def describe_error(error: Exception) -> str:
    """What an error of the hub means and what to do, in one or two sentences."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    for cause in exception_chain(error):
        if isinstance(cause, errors.GatedRepoError):
            return "it is gated. Request access on its page, then run `hf auth login`."
        if isinstance(cause, errors.RevisionNotFoundError):
            return "it has no such revision. Give one of its branches, tags or commits."
        if isinstance(cause, errors.RepositoryNotFoundError):
            return (
                "there is no repository of that name, or it is private and you have no access. "
                "Check the name, or run `hf auth login`, or set HF_TOKEN."
            )
        if isinstance(cause, errors.OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, and there is no local copy. Unset it."
    if status == 401:
        return "the token was rejected. Run `hf auth login`, or set HF_TOKEN to a valid token."
    if status == 403:
        return "your token has no write access to it. Create one with write access, or choose a repository of your own."
    class_names = {kind.__name__ for cause in exception_chain(error) for kind in type(cause).__mro__}
    if class_names & {"TransportError", "ConnectionError"}:  # of the HTTP library that huggingface_hub uses
        return "the hub cannot be reached. Check the network and HF_ENDPOINT."
    return f"{(str(error) or type(error).__name__).splitlines()[0].rstrip('.')}."


def exception_chain(error: BaseException) -> Sequence[BaseException]:
    """An error and the errors that caused it."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return chain
