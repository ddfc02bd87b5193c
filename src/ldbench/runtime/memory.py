"""How the CPU's memory is handed out."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's names, of malloc.h
LARGEST = (2**31 - 1, 32 * 2**20)  # bytes: what a call can say, and what older releases take


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed for what is asked next, from here on, and says whether it is there and does.

    By itself it hands large tensors back to the system one by one, which clears every page of the next. No number depends on it, and of memory only
    what the process holds between its peaks.
    """
    malloc = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if malloc is None:
        return False
    return any(malloc(M_MMAP_THRESHOLD, size) for size in LARGEST) and bool(malloc(M_TRIM_THRESHOLD, -1))
