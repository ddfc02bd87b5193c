"""The only module that contacts the Hugging Face hub. Nothing here is called unless a name on the hub was given."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

ALLOWED_PATTERNS = ("*.safetensors", "*.json", "*.bin", "*.pt", "*.pth")


def local(path: str | Path) -> Path:
    """The given path, or the local copy of `hf://owner/name` or of one of its revisions, `hf://owner/name@revision`."""
    name = str(path)
    return fetch(name.removeprefix("hf://")) if name.startswith("hf://") else Path(name).expanduser()


def fetch(name: str) -> Path:
    """The local copy of `owner/name` or `owner/name@revision`. Raises ValueError, with what to do, if there is none."""
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    validate_repo_id(repo)
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(ALLOWED_PATTERNS)))
    except Exception as error:  # offline, unknown, gated: the hub has an error for each
        raise ValueError(
            f"hf://{name} cannot be fetched from the Hugging Face hub: {describe_error(error)} "
            "Or give a file or a folder instead."
        ) from error


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
