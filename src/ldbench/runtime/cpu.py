"""The processor of this machine, and the compiler for it."""

import os
import platform
import re
import shutil
from pathlib import Path


def processor_name() -> str:
    """The model of the processor, as far as the system reports it."""
    info = Path("/proc/cpuinfo")
    model = (
        re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if info.is_file()
        else None
    )
    return model.group(1) if model else platform.processor() or platform.machine()


def find_compiler() -> str | None:
    """The C++ compiler that torch.compile uses on a CPU: CXX, else g++, on a Mac clang++; None if it is not there."""
    usual = "clang++" if platform.system() == "Darwin" else "g++"
    return shutil.which(os.environ.get("CXX") or usual)


def validate_compiler(*, compiles: bool, device: str) -> None:
    """Raises ValueError where torch.compile is requested on a CPU without a compiler."""
    if compiles and device == "cpu" and find_compiler() is None:
        raise ValueError(
            "trainer.compile=true needs a C++ compiler on a CPU, and there is none. Install one (apt-get install g++, "
            "or set CXX to its path), or leave compilation out."
        )
