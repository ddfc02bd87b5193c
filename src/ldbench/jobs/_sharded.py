"""Running shares of a set of images in several processes of this machine, which return tensors by name in files."""

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
    work: Callable[..., Mapping[str, Tensor]],  # (share, *, device, advance) -> results by name
    shares: Sequence[Sequence[range]],
    *,
    device: torch.device,
    advance: Callable[[int], None],
    scratch: Path,
) -> Iterator[dict[str, Tensor]]:
    """The results of each share, in order, passed as files in the folder `scratch`, which nothing else may use and
    which is removed.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        run_parallel(partial(write_share, work, scratch), shares, device=device, advance=advance)
        for share in shares:
            yield load_file(share_path(scratch, share))
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
    """Runs a share and writes its results to the share's file."""
    write_tensors(work(share, device=device, advance=advance), share_path(scratch, share))


def share_path(scratch: Path, share: Sequence[range]) -> Path:
    """The file of a share, named by its first index."""
    return scratch / f"{share[0].start}.safetensors"
