"""Checks of the machine: its devices, their precisions, and the space on its disks."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ldbench.checks.finding import Finding, quoted, size
from ldbench.runtime.cpu import find_compiler, processor_name

LITTLE_SHARED_MEMORY = 512e6  # bytes: a few batches for each of some workers
LONGEST_TEMPORARY = 60  # bytes of a path, behind which multiprocessing writes up to 45 more
LITTLE_SPACE, NO_SPACE = 5e9, 200e6  # bytes: the checkpoints of a large tokenizer; a run of the embedded default


def check_cpu() -> list[Finding]:
    """The processor, its memory, and the precisions that it trains in."""
    pages = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
        else None
    )
    memory = f", {size(pages)} of memory" if pages else ""
    return [Finding("ok", "cpu", f"{processor_name()}, {num_threads()} threads{memory}; trains in {trains_in('cpu')}")]


def check_cuda() -> list[Finding]:
    """The CUDA devices, their memory, and the precisions that they train in; nothing without any."""
    import torch

    if torch.cuda.is_available():
        each = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        same = Counter((device.name, device.total_memory) for device in each)
        return [
            Finding("ok", "cuda", f"{count} x {name}, {size(memory)}; trains in {trains_in('cuda')}")
            for (name, memory), count in same.items()
        ]
    if not shutil.which("nvidia-smi"):
        return []
    if torch.version.cuda is None:
        cure = (
            "If you want it: pip install --force-reinstall torch torchvision, both of a CUDA build "
            "(https://pytorch.org/get-started/locally)"
        )
        return [
            Finding(
                "warning",
                "cuda",
                f"an NVIDIA driver is installed, but torch {torch.__version__} is built without CUDA",
                cure,
            )
        ]
    what = f"an NVIDIA driver is installed, but torch {torch.__version__} (CUDA {torch.version.cuda}) sees no device"
    return [
        Finding(
            "warning",
            "cuda",
            what,
            "Look at nvidia-smi, CUDA_VISIBLE_DEVICES, and whether the driver is new enough for this CUDA.",
        )
    ]


def check_mps() -> list[Finding]:
    """Apple's GPU, its memory, and the precisions that it trains in; nothing without one."""
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
    wanted, available = threads * devices, num_threads()
    if wanted > available:
        what = (
            f"trainer.threads={threads} times trainer.devices={devices} are {wanted} threads, "
            f"and {available} are available"
        )
        cure = (
            f"Set trainer.threads={max(available // devices, 1)}, or fewer trainer.devices. "
            "Sums depend on the threads, so the artifacts will be different ones."
        )
        return [Finding("warning", "trainer", what, cure)]
    chosen = "" if accelerator != "auto" else f", which is {find_device('auto').type}"
    return [
        Finding("ok", "trainer", f"accelerator {accelerator}{chosen}, {precision}, {wanted} of {available} threads")
    ]


def check_disk(paths: Sequence[Path]) -> list[Finding]:
    """Whether files can be written to these folders, which need not exist yet, and how much space is free."""
    findings, drives = [], set()
    for folder in dict.fromkeys(map(existing_folder, paths)):
        drive = folder.stat().st_dev
        if drive not in drives:
            drives.add(drive)
            findings.append(judge_space(folder, free=shutil.disk_usage(folder).free))
        try:
            with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as file:
                file.write(b"space for a file")
                file.flush()
        except OSError as error:
            cure = (
                f"Make it a folder that you may write to (chmod u+w {quoted(folder)}), or choose another one: "
                "paths.root=DIR"
            )
            findings.append(
                Finding("broken", "disk", f"no file can be written in {folder.absolute()}: {error.strerror}", cure)
            )
    return findings


def check_shared_memory(folder: Path = Path("/dev/shm")) -> list[Finding]:
    """Whether data loading workers can hand over batches: containers often have 64 MB for it. Nothing without one."""
    if not folder.is_dir():
        return []
    total = shutil.disk_usage(folder).total
    what = f"{size(total)} of shared memory at {folder}"
    if total >= LITTLE_SHARED_MEMORY:
        return [Finding("ok", "shared memory", what)]
    cure = (
        "Data loading workers pass batches through it. Start the container with --shm-size=8g or --ipc=host, or leave "
        "trainer.workers=0"
    )
    return [Finding("warning", "shared memory", what, cure)]


def check_temporary_files() -> list[Finding]:
    """Whether processes can talk to each other by sockets among the temporary files."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) <= LONGEST_TEMPORARY:
        return [Finding("ok", "temporary", f"files in {folder}")]
    cure = "Sockets of processes have names of at most 107 bytes. Set TMPDIR to a shorter path, such as /tmp"
    return [Finding("warning", "temporary", f"the folder of temporary files has a long path: {folder}", cure)]


def check_compiler() -> list[Finding]:
    """The compiler for trainer.compile on a CPU."""
    found = find_compiler()
    if found is not None:
        return [Finding("ok", "compiler", found)]
    cure = "Only trainer.compile=true on a CPU needs one: apt-get install g++, or set CXX to its path"
    return [Finding("ok", "compiler", "there is no C++ compiler", cure)]


def judge_space(folder: Path, *, free: float) -> Finding:
    """Whether that many free bytes are enough."""
    what = f"{size(free)} free at {folder.absolute()}"
    if free >= LITTLE_SPACE:
        return Finding("ok", "disk", what)
    return Finding(
        "broken" if free < NO_SPACE else "warning",
        "disk",
        what,
        "Free some space on it, or choose another folder: paths.root=DIR",
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
    """The number of threads that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def existing_folder(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(candidate for candidate in (path.absolute(), *path.absolute().parents) if candidate.exists())
