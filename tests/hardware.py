"""What this machine's processor computes in hardware; tests that are far slower without it are skipped."""

import pytest
import torch

BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # as torch names it on x86 and, the last, on ARM

capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # the oldest torch that we support has no such function
needs_bf16 = pytest.mark.skipif(
    not any(capabilities.get(name, False) for name in BF16),
    reason="needs bfloat16 in hardware (torch.cpu.get_capabilities()): without AVX512_BF16 or AMX it takes minutes",
)
