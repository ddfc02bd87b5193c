"""The processor of this machine."""

import platform
import re
from pathlib import Path


def processor_name() -> str:
    """The model of the processor, as far as the system reports it."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), flags=re.MULTILINE) if info.is_file() else None
    return model.group(1) if model else platform.processor() or platform.machine()
