"""What the system tells of this machine's processor."""

import platform
import re
from pathlib import Path


def processor_name() -> str:
    """The model of the processor, as far as the system tells."""
    told = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", told.read_text(), flags=re.MULTILINE) if told.is_file() else None
    return named.group(1) if named else platform.processor() or platform.machine()
