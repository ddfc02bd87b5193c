"""Checks of the machine: its devices, what they train in, and the room on its disks."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ldbench.checks.finding import Finding, quoted, size
from ldbench.runtime.cpu import processor_name

LITTLE_SPACE, NO_SPACE = 5e9, 200e6  # bytes: the checkpoints of a large tokenizer; a run of the embedded default


def check_cpu() -> list[Finding]:
    """The processor, its memory, and what it trains in."""
    pages = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
        else None
    )
    memory = f", {size(pages)} of memory" if pages else ""
    return [Finding("ok", "cpu", f"{processor_name()}, {num_threads()} threads{memory}; trains in {trains_in('cpu')}")]


def check_cuda() -> list[Finding]:
    """The CUDA devices, their memory, and what they train in; nothing where there are none."""
    import torch

    if torch.cuda.is_available():
        each = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        alike = Counter((device.name, device.total_memory) for device in each)
        return [
            Finding("ok", "cuda", f"{count} x {name}, {size(memory)}; trains in {trains_in('cuda')}")
            for (name, memory), count in alike.items()
        ]
    if not shutil.which("nvidia-smi"):
        return []
    if torch.version.cuda is None:
        cure = "If you want it: pip install --force-reinstall torch torchvision, both of a CUDA build (https://pytorch.org/get-started/locally)"
        return [
            Finding(
                "warning",
                "cuda",
                f"there is an NVIDIA driver, but torch {torch.__version__} is built without CUDA",
                cure,
            )
        ]
    what = f"there is an NVIDIA driver, but torch {torch.__version__} (CUDA {torch.version.cuda}) sees no device"
    return [
        Finding(
            "warning",
            "cuda",
            what,
            "Look at nvidia-smi, CUDA_VISIBLE_DEVICES, and whether the driver is new enough for this CUDA.",
        )
    ]


def check_mps() -> list[Finding]:
    """Apple's graphics processor, its memory, and what it trains in; nothing where there is none."""
    import torch

    if not torch.backends.mps.is_available():
        return []
    return [
        Finding(
            "ok",
            "mps",
            f"{processor_name()}, {size(torch.mps.recommended_max_memory())} of memory; trains in {trains_in('mps')}",
        )
    ]


def check_trainer(*, accelerator: str, precision: str, devices: int, threads: int) -> list[Finding]:
    """Whether the configured trainer can run here."""
    from ldbench.runtime.device import find_device, validate_precision

    try:
        validate_precision(precision, accelerator)
    except ValueError as error:
        what, _, cure = str(error).partition(". ")
        return [Finding("broken", "trainer", what, cure)]
    wanted, there = threads * devices, num_threads()
    if wanted > there:
        what = f"trainer.threads={threads} times trainer.devices={devices} are {wanted} threads, and there are {there}"
        cure = f"Say trainer.threads={max(there // devices, 1)}, or fewer trainer.devices. Sums depend on the threads: the artifacts will be others."
        return [Finding("warning", "trainer", what, cure)]
    chosen = "" if accelerator != "auto" else f", which is {find_device('auto').type}"
    return [Finding("ok", "trainer", f"accelerator {accelerator}{chosen}, {precision}, {wanted} of {there} threads")]


def check_disk(places: Sequence[Path]) -> list[Finding]:
    """Whether files can be written at these places, which need not exist yet, and how much room there is."""
    findings, drives = [], set()
    for folder in dict.fromkeys(standing(place) for place in places):
        drive = folder.stat().st_dev
        if drive not in drives:
            drives.add(drive)
            findings.append(judge_space(folder, free=shutil.disk_usage(folder).free))
        try:
            with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as file:
                file.write(b"room for a file")
                file.flush()
        except OSError as error:
            cure = f"Make it a folder that you may write to (chmod u+w {quoted(folder)}), or choose another place: paths.root=DIR"
            findings.append(
                Finding("broken", "disk", f"no file can be written in {folder.absolute()}: {error.strerror}", cure)
            )
    return findings


def judge_space(folder: Path, *, free: float) -> Finding:
    """Whether so many free bytes are enough to work with."""
    what = f"{size(free)} free at {folder.absolute()}"
    if free >= LITTLE_SPACE:
        return Finding("ok", "disk", what)
    return Finding(
        "broken" if free < NO_SPACE else "warning",
        "disk",
        what,
        "Free some space there, or choose another place: paths.root=DIR",
    )


def trains_in(accelerator: str) -> str:
    """The precisions that an accelerator can train in."""
    from ldbench.runtime.device import PRECISIONS, validate_precision

    def takes(precision: str) -> bool:
        try:
            validate_precision(precision, accelerator)
        except ValueError:
            return False
        return True

    return ", ".join(filter(takes, PRECISIONS))


def num_threads() -> int:
    """The threads that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def standing(place: Path) -> Path:
    """The place itself, or the nearest folder above it that exists."""
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
