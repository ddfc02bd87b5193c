"""What this machine's processor computes in hardware; tests that are far slower without it are skipped."""

import pytest
import torch

BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # as torch and ARM name it

native_bf16 = any(torch.cpu.get_capabilities().get(name, False) for name in BF16)
needs_bf16 = pytest.mark.skipif(
    not native_bf16, reason="needs bfloat16 in hardware: a CPU with AVX512_BF16 or AMX runs it in minutes"
)
