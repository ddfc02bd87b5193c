"""The device of `trainer.accelerator`, and the precisions that it computes in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from ldbench.runtime.cpu import processor_name

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(accelerator: str) -> torch.device:
    """The device of an accelerator's name; `auto` is the best available.

    Raises ValueError for one that is not available.
    """
    availability = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name, is_available in availability.items() if is_available]
    if accelerator == "auto":
        return torch.device(available[0])
    if accelerator not in available:
        raise ValueError(
            f"There is no accelerator {accelerator!r} on this machine. "
            f"Choose trainer.accelerator=auto or one of: {', '.join(available)}."
        )
    return torch.device(accelerator)


def validate_devices(accelerator: str, devices: int) -> None:
    """Raises ValueError for more processes on this machine than it has GPUs, where each process needs one."""
    if find_device(accelerator).type == "cuda" and devices > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(
            f"trainer.devices={devices} needs as many GPUs, and torch sees {count}. Set trainer.devices={count}."
        )


def device_name(device: torch.device) -> str:
    """The model of a device: of a GPU, or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()


def validate_precision(precision: str, accelerator: str, *, key: str = "trainer.precision") -> None:
    """Raises ValueError for a precision that is unknown or unsupported by this accelerator.

    `key`: the config key that set it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown {key} {precision!r}. Choose {', '.join(PRECISIONS)}.")
    kind = find_device(accelerator).type
    if precision in ("tf32", "fp16") and kind != "cuda":
        raise ValueError(f"{key}={precision} is for CUDA only, and this run is on {kind}. Choose bf16 or fp32.")


def disable_tf32() -> None:
    """Disables TF32 on CUDA for matrix products and convolutions;
    torch's default rounds the inputs of convolutions to TF32.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Within it, CUDA's float32 matrix products and convolutions use TF32 if the precision is tf32,
    and full float32 otherwise.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def compute_precision(
    precision: str,
    kind: str,  # of the device: cpu | cuda | mps
) -> Iterator[None]:
    """Within it, matrix products and convolutions use a precision: `matmul_precision`,
    and torch's autocast for half precisions.
    """
    with (
        matmul_precision(precision),
        torch.autocast(kind, dtype=HALF.get(precision, torch.bfloat16), enabled=precision in HALF),
    ):
        yield
