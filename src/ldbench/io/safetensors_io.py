"""Files of tensors, as safetensors: there whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ldbench.io.files import atomic_write


def write_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors in one move, for all to read. Raises OSError with what to do where the disk does not take them."""
    with atomic_write(
        path, apart=True
    ) as scratch:  # safetensors has a scratch file of its own, which a kill would leave beside this one
        try:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, scratch, metadata=metadata
            )
        except SafetensorError as error:
            raise OSError(
                f"{path} cannot be written ({error}). Free some space, or choose another place with paths.root=DIR."
            ) from error
        scratch.chmod(0o644)  # safetensors keeps its files private
