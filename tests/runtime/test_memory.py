"""Freed memory is kept for the next allocations: the system need not clear its pages again."""

import platform
import subprocess
import sys

import pytest

from ldbench.runtime.memory import keep_freed_memory

FAULTS = """
import resource, torch
from ldbench.runtime.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
assert keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is for glibc")
def test_tensors_of_one_size_after_another_take_the_same_pages() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    as_it_was, kept = map(int, done.stdout.split())
    assert kept < 0.2 * as_it_was  # of eight tensors one


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
