"""The Hugging Face hub: the only door to it. Nothing here is called unless a name on the hub was given."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

WANTED = ("*.safetensors", "*.json", "*.bin", "*.pt", "*.pth")


def local(path: str | Path) -> Path:
    """A path itself, or the local copy of `hf://owner/name`, or of a revision of it, `hf://owner/name@revision`."""
    name = str(path)
    return fetch(name.removeprefix("hf://")) if name.startswith("hf://") else Path(name).expanduser()


def fetch(name: str) -> Path:
    """The local copy of `owner/name` or `owner/name@revision`. Raises ValueError, with what to do, where it cannot be had."""
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    check(repo)
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(WANTED)))
    except Exception as error:  # offline, unknown, gated: the hub has an error for each
        raise ValueError(
            f"hf://{name} cannot be fetched from the Hugging Face hub: {reason(error)} Or give a file or a folder in its place."
        ) from error


def upload(files: Mapping[str, Path | bytes], repo: str, *, private: bool, message: str) -> str:
    """Puts files into a repository in one commit, makes the repository where there is none, and returns the commit's address.

    `private` is of a new repository. Raises ValueError, with what to do, where the hub does not take them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    check(repo)
    if get_token() is None:
        raise ValueError(
            f"{repo} cannot be pushed to the Hugging Face hub: it asks who you are. Run `hf auth login`, or set HF_TOKEN."
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
        raise ValueError(f"{repo} cannot be pushed to the Hugging Face hub: {reason(error)}") from error


def check(repo: str) -> None:
    """Raises ValueError for what is no name on the hub."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(
            f"A name on the hub is owner/name, and for a revision of it owner/name@revision; got {repo!r}."
        )


def reason(error: Exception) -> str:
    """What an error of the hub means, and what to do, in one sentence or two."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    for known in causes(error):
        if isinstance(known, errors.GatedRepoError):
            return "its owner grants access one by one. Ask for it on its page, then run `hf auth login`."
        if isinstance(known, errors.RevisionNotFoundError):
            return "it has no such revision. Give a branch, a tag or a commit of it."
        if isinstance(known, errors.RepositoryNotFoundError):
            return "there is none of that name, or it is private and you are not let in. Look at the name, or run `hf auth login`, or set HF_TOKEN."
        if isinstance(known, errors.OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE says to stay offline, and there is no copy here. Unset it."
    if status == 401:
        return "it does not know you. Run `hf auth login`, or set HF_TOKEN to a token that is valid."
    if status == 403:
        return "your token may not write there. Make one with write access, or choose a repository of your own."
    kinds = {kind.__name__ for known in causes(error) for kind in type(known).__mro__}
    if kinds & {"TransportError", "ConnectionError"}:  # the first is of whichever HTTP library the hub's own stands on
        return "the hub cannot be reached. Look at the network, or at HF_ENDPOINT."
    return f"{(str(error) or type(error).__name__).splitlines()[0].rstrip('.')}."


def causes(error: BaseException) -> Sequence[BaseException]:
    """An error and those that it came from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return found
