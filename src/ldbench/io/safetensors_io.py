"""Writing safetensors files, atomically."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ldbench.io.files import atomic_write


def write_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors atomically, readable by all users. Raises OSError with what to do where they cannot be written."""
    # safetensors creates a temporary file of its own, which a kill would leave behind
    with atomic_write(path, own_folder=True) as scratch:
        try:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, scratch, metadata=metadata
            )
        except SafetensorError as error:
            raise OSError(
                f"{path} cannot be written ({error}). Free some space, or choose another folder with paths.root=DIR."
            ) from error
        scratch.chmod(0o644)  # safetensors makes its files private
