"""Pickles and safetensors of strangers, through loaders that run no code; what would fill the memory is refused before it does.

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

REPEATED = 4  # times the bytes of its file that tensors may hold: weights that two names share count twice
LONGEST = 300  # characters of a tensor's name
SMALL = 1 << 24  # bytes that no file is too small for


def read_pickle(path: Path, *, allowed: Sequence[type] = ()) -> Any:
    """What torch's restricted loader [0] finds in a file; classes beyond its own must be `allowed`.

    Raises ValueError, naming the file, for one that is damaged, names other classes, or holds more than its bytes.
    """
    try:
        check_archive(path)
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise ValueError(f"{path} is no file that is safe to read ({first_line(error)}).") from error


def write_pickle(content: Any, path: Path) -> None:
    """Writes what torch's loader reads. Raises OSError, naming the file, where the disk does not take it: torch tells of a position only."""
    try:
        with add_path_to_errors(path), path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if not isinstance(error.__context__, OSError):
            raise
        with add_path_to_errors(path):
            raise error.__context__ from None


def check_archive(path: Path) -> None:
    """Raises ValueError for what is no file, and for an archive whose parts are compressed: torch writes none."""
    if not path.is_file():
        raise ValueError("it is no file" if path.exists() else "there is none")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size, told = path.stat().st_size, sum(part.file_size for part in archive.infolist())
        if told > 2 * size + 65536:
            raise ValueError(f"its {size} bytes would become {told}, as in a decompression bomb")


def validated_tensors(content: Mapping[Any, Any], num_bytes: int) -> dict[str, Tensor]:
    """The tensors of a mapping, by name; `num_bytes`: of the file that they are from.

    Raises ValueError for any that is not a plain one of the CPU, and for more numbers than such a file can hold.
    """
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    nameless = [name for name in tensors if not name.isprintable() or len(name) > LONGEST]
    if nameless:
        raise ValueError(f"{ascii(nameless[0])[:80]} is no name of a tensor. Save the weights again.")
    strange = [name for name, value in tensors.items() if not is_plain(value)]
    if strange:
        raise ValueError(
            f"{strange[0][:80]} is no plain tensor of numbers. Save the weights again, dense and on the CPU."
        )
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    if total > max(SMALL, REPEATED * num_bytes):
        raise ValueError(
            f"its {num_bytes} bytes would become {total}: it repeats numbers. Save the weights again, each tensor contiguous."
        )
    return tensors


def is_plain(value: Tensor) -> bool:
    """Whether a tensor is what it seems: dense, on the CPU, with data, of no class of its own but that of parameters."""
    dense = value.layout == torch.strided and not value.is_nested and not value.is_quantized
    return dense and value.device.type == "cpu" and type(value) in (Tensor, torch.nn.Parameter)


def first_line(error: BaseException) -> str:
    """What an error says in one printable line of at most 300 characters. Of torch's loader: what it refused, and not how to be less careful."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it names {named[1]}, which is neither a tensor nor plain data"
    if "weights_only" in str(error):
        return "it is no pickle of tensors and plain data"
    said = str(error).strip().splitlines()
    line = said[0][:300].rstrip(". ") if said else type(error).__name__
    return "".join(sign if sign.isprintable() else "?" for sign in line)
