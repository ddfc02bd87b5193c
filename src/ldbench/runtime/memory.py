"""The allocation of CPU memory."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
THRESHOLDS = (2**31 - 1, 32 * 2**20)  # bytes: the largest argument, and the limit of older releases


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next allocations, and returns whether that succeeded.

    By default glibc returns large tensors to the system, which clears every page of the next one. No number depends on
    it; the process holds its peak memory.
    """
    malloc = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if malloc is None:
        return False
    return any(malloc(M_MMAP_THRESHOLD, size) for size in THRESHOLDS) and bool(malloc(M_TRIM_THRESHOLD, -1))
