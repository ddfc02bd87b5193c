"""What several processes of this machine tell of their shares of images: tensors by name, in files."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ldbench.io.safetensors_io import write_tensors
from ldbench.runtime.workers import run_parallel


def run_sharded(
    work: Callable[..., Mapping[str, Tensor]],  # (share, *, device, advance) -> what is told of it
    shares: Sequence[Sequence[range]],
    *,
    device: torch.device,
    advance: Callable[[int], None],
    scratch: Path,
) -> Iterator[dict[str, Tensor]]:
    """What processes tell of their shares, in the order of these, by files in a folder that nothing else uses and that is removed."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        run_parallel(partial(write_share, work, scratch), shares, device=device, advance=advance)
        for share in shares:
            yield load_file(file_of(scratch, share))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_share(
    work: Callable[..., Mapping[str, Tensor]],
    scratch: Path,
    share: Sequence[range],
    *,
    device: torch.device,
    advance: Callable[[int], None],
) -> None:
    """Does a share and leaves what is told of it in its file."""
    write_tensors(work(share, device=device, advance=advance), file_of(scratch, share))


def file_of(scratch: Path, share: Sequence[range]) -> Path:
    """The file of a share, named by its first place."""
    return scratch / f"{share[0].start}.safetensors"
