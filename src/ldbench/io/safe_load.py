"""Untrusted pickles and tensors, loaded without executing code and checked for sizes that would exhaust the memory.

[0] PyTorch, torch.load with weights_only, https://docs.pytorch.org/docs/stable/generated/torch.load.html
"""

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldbench.io.files import add_path_to_errors

HARMLESS = (  # packages whose objects are read as nothing
    "lightning",
    "lightning_fabric",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "torchmetrics",
    "typing",
)
BUILTINS = (dict, list, set, tuple, int, float, str, bool)  # factories of defaultdict, types of settings
MAX_IGNORED = 100  # classes of other packages in one file
MAX_EXPANSION = 4  # bytes of tensors for each byte of their file: weights that two names share count twice
MAX_NAME = 300  # characters of a tensor's name
ALWAYS_ALLOWED = 1 << 24  # bytes of tensors that a file of any size may hold


class Ignored:
    """What stands for an object of another package in a checkpoint: none of that package's code runs."""

    def __new__(cls, *args: Any, **keywords: Any) -> "Ignored":
        """An empty object, whatever it is made of."""
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Forgets the state."""


def plain_dict(*factory: Any) -> dict[Any, Any]:
    """What stands for a defaultdict, whose factory is forgotten."""
    return {}


def read_pickle(path: Path, *, allowed: Sequence[type] = ()) -> Any:
    """The content of a file by torch's restricted loader [0]; classes beyond its own must be `allowed`.

    Training checkpoints also hold callbacks and settings: objects of the packages in HARMLESS are read as `Ignored`.
    Raises ValueError, naming the file, for damaged files, other classes, and archives that expand.
    """
    known: list[Any] = [*allowed, *BUILTINS, (plain_dict, "collections.defaultdict")]
    try:
        validate_archive(path)
        for _ in range(MAX_IGNORED):
            try:
                with torch.serialization.safe_globals(known):
                    return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                name = rejected_global(error)
                if name is None or name.partition(".")[0] not in HARMLESS:
                    raise
                known.append((Ignored, name))
        raise ValueError(f"it holds objects of more than {MAX_IGNORED} classes")
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise ValueError(f"{path} is not a file that is safe to read ({first_line(error)}).") from error


def rejected_global(error: BaseException) -> str | None:
    """The class that torch's restricted loader rejected, by its dotted name."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found[1].rstrip(".") if found else None


def write_pickle(content: Any, path: Path) -> None:
    """Writes a file for torch's loader.

    Raises OSError, naming the file, where it cannot: torch's own error does not name it.
    """
    try:
        with add_path_to_errors(path), path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if not isinstance(error.__context__, OSError):
            raise
        with add_path_to_errors(path):
            raise error.__context__ from None


def validate_archive(path: Path) -> None:
    """Raises ValueError unless the path is a file, and for compressed archives: torch writes none."""
    if not path.is_file():
        raise ValueError("it is not a file" if path.exists() else "it does not exist")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size, expanded = path.stat().st_size, sum(part.file_size for part in archive.infolist())
        if expanded > 2 * size + 65536:
            raise ValueError(f"its {size} bytes would become {expanded}, as in a decompression bomb")


def validated_tensors(content: Mapping[Any, Any], num_bytes: int) -> dict[str, Tensor]:
    """The tensors of a mapping, by name; `num_bytes`: the size of their file.

    Raises ValueError for any that is not a plain CPU tensor, and for more numbers than the file can hold.
    """
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    invalid_names = [name for name in tensors if not name.isprintable() or len(name) > MAX_NAME]
    if invalid_names:
        raise ValueError(f"{ascii(invalid_names[0])[:80]} is not a valid tensor name. Save the weights again.")
    not_plain = [name for name, value in tensors.items() if not is_plain(value)]
    if not_plain:
        raise ValueError(
            f"{not_plain[0][:80]} is not a plain tensor of numbers. Save the weights again, dense and on the CPU."
        )
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    if total > max(ALWAYS_ALLOWED, MAX_EXPANSION * num_bytes):
        raise ValueError(
            f"its {num_bytes} bytes would become {total}: it repeats numbers. "
            "Save the weights again, each tensor contiguous."
        )
    return tensors


def is_plain(value: Tensor) -> bool:
    """Whether a tensor is dense, on the CPU, with data, and of no subclass except Parameter."""
    dense = value.layout == torch.strided and not value.is_nested and not value.is_quantized
    return dense and value.device.type == "cpu" and type(value) in (Tensor, torch.nn.Parameter)


def first_line(error: BaseException) -> str:
    """An error's message in one printable line of at most 300 characters.

    Of an error of torch's restricted loader: the class that it rejected, without the advice to disable the restriction.
    """
    if named := rejected_global(error):
        return f"it names {named}, which is neither a tensor nor plain data"
    if "weights_only" in str(error):
        return "it is not a pickle of tensors and plain data"
    lines = str(error).strip().splitlines()
    line = lines[0][:300].rstrip(". ") if lines else type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in line)
