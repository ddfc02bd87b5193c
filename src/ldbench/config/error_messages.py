"""Errors of composition in a sentence or two, for the person who typed the command."""

import difflib
import errno
import re
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldbench.config.command_line import quoted

Compose = Callable[[str, Sequence[str]], DictConfig]


def error_message(
    error: Exception,
    config_name: str | None = None,
    overrides: Sequence[str] = (),
    compose: Compose | None = None,  # composes again without a mistyped override, to find the keys beside it
) -> str:
    """Returns what was wrong and what to do, with the nearest known name where one was mistyped."""
    if isinstance(error, MissingConfigException):
        group, _, given = (error.missing_cfg_file or "").rpartition("/")
        known = list(error.options or [])
        if group == "network" and not any(
            given in override.partition("=")[2] for override in overrides if "network" in override
        ):
            return without_network(given, known)
        return f"There is no {group}={given}.{did_you_mean(given, known)}\nAvailable: {', '.join(sorted(known))}"
    mistyped = re.search(r"Could not override '([^']+)'", str(error))
    if isinstance(error, ConfigCompositionException) and mistyped:
        return _unknown_key(mistyped.group(1), config_name, overrides, compose)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        problem = str(error).splitlines()[0].rstrip(".")
        return (
            f"{error.override} is no override that Hydra can read ({problem}). A value with spaces or one of "
            f"= , ( ) [ ] {{ }} : # stands in quotes, within quotes for the shell: '{key}={quoted(value)}'"
        )
    if "Error resolving interpolation '${data}'" in str(error):
        added = next((override for override in overrides if override.startswith("+") and "@" in override), None)
        if added is not None:  # Hydra composes such groups before those of the defaults
            return (
                f"{added} means the feature network of the data, which are not known where a part is added with +. "
                f"Leave out the + where the config has this place already: {added[1:]}. Elsewhere name a network's "
                "own teacher or loss, such as alignment_digits."
            )
        return (
            "The feature network of the data is meant, and no data are chosen here. Name a network's own teacher or "
            "loss, such as teacher=digits or teacher=fashion_mnist."
        )
    if worker := worker_failure(error):
        return worker
    if "Config group override must be a string" in str(error):
        return "null is no option of a config group. Leave a part out with ~, as in ~tokenizer.losses.alignment."
    if isinstance(error, OSError) and error.strerror:
        full = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some space")
        cures = {**full, errno.EACCES: "Make it writable", errno.EROFS: "Make it writable"}
        cure = f"{cures.get(error.errno or 0, 'Check it')}, or choose another folder with paths.root=DIR."
        return (
            f"{error.filename or 'A file'}: {error.strerror}. {cure} Finished work is kept: "
            "the same command continues from there."
        )
    return str(error)


def without_network(data: str, known: Sequence[str]) -> str:
    """What to do where a teacher or an encoder is the data's feature network, and the data have none."""
    return (
        f"data={data} has no feature network, to which this tokenizer is aligned or which is its encoder. Known: "
        f"network={', '.join(sorted(known))}. Leave the alignment out with ~loss@tokenizer.losses.alignment, choose "
        "another teacher, such as loss@tokenizer.losses.alignment=alignment (DINOv2; needs weights), name a network "
        f"of other data, such as loss@tokenizer.losses.alignment=alignment_digits, or add network/{data}.yaml (see "
        "docs/data.md)."
    )


def worker_failure(error: Exception) -> str | None:
    """What went wrong in a data loading worker or between processes, in a sentence; None for any other error."""
    text = str(error)
    if match := re.match(r"Caught (\w+) in [\w ]*process \d+\.\nOriginal Traceback", text):
        return text.rsplit(f"\n{match[1]}: ", 1)[-1].strip()
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        shared = "shared memory" in text or "Bus error" in text
        cure = (
            "The shared memory /dev/shm is full: start the container with --shm-size=8g or --ipc=host, or set "
            if shared
            else "It may have been out of memory. Set fewer workers, or "
        )
        return f"A data loading worker ended ({text.splitlines()[0].rstrip('. ')}). {cure}trainer.workers=0."
    if isinstance(error, ConnectionError | EOFError) and _is_of_workers(error):
        return (
            f"A data loading worker ended ({type(error).__name__}). It may have been out of memory. Set fewer workers, "
            "or trainer.workers=0."
        )
    if "AF_UNIX path too long" in text:
        return (
            f"The path of temporary files is too long for the sockets of processes: {tempfile.gettempdir()}. Set "
            "TMPDIR to a shorter one, such as TMPDIR=/tmp."
        )
    return None


def _is_of_workers(error: BaseException) -> bool:
    """Whether an error arose where torch passes tensors between processes."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).parts[-3:-1] == ("torch", "multiprocessing") for frame in frames)


def did_you_mean(given: str, known: Sequence[str]) -> str:
    """Returns ' Did you mean X?' for the closest known name, or an empty string."""
    close = difflib.get_close_matches(given, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _unknown_key(key: str, config_name: str | None, overrides: Sequence[str], compose: Compose | None) -> str:
    experiment = next((override for override in overrides if override.startswith("experiments=")), None)
    keys = [override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides]
    if experiment and key not in keys:
        return (
            f"{experiment} sets {key}, which ldbench.{config_name} does not have. "
            "The first lines of its file show the command that it is for."
        )
    siblings = _sibling_keys(key, config_name, overrides, compose) if config_name and compose else []
    hint = did_you_mean(key.rpartition(".")[2], siblings)
    part = f" -p {key.split('.')[0]}" if "." in key else ""
    command = f"python -m ldbench.{config_name or 'train'} --cfg job{part}"
    return f"There is no config key {key}.{hint}\n`{command}` prints the keys there are."


def _sibling_keys(key: str, config_name: str, overrides: Sequence[str], compose: Compose) -> list[str]:
    rest = [o for o in overrides if "=" in o and not o.startswith("-") and o.partition("=")[0] != key]
    if len(rest) == len(overrides):  # the key is not on the command line: composing again would fail again
        return []
    try:
        composed, parent = compose(config_name, rest), key.rpartition(".")[0]
        node = OmegaConf.select(composed, parent) if parent else composed
    except (ValueError, OmegaConfBaseException):
        return []
    return [str(name) for name in node] if isinstance(node, DictConfig) else []
