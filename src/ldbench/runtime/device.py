"""Which device `trainer.accelerator` stands for, and the precisions that it computes in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from ldbench.runtime.cpu import processor_name

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(accelerator: str) -> torch.device:
    """The device of an accelerator's name; `auto` is the best that is here. Raises ValueError for one that is not."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return torch.device(next(name for name, available in here.items() if available))
    if not here.get(accelerator, False):
        there = ", ".join(name for name, available in here.items() if available)
        raise ValueError(
            f"There is no accelerator {accelerator!r} on this machine. Choose trainer.accelerator=auto or one of: {there}."
        )
    return torch.device(accelerator)


def validate_devices(accelerator: str, devices: int) -> None:
    """Raises ValueError for more processes on this machine than it has graphics processors, of which each process needs one."""
    if find_device(accelerator).type == "cuda" and devices > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise ValueError(
            f"trainer.devices={devices} needs as many graphics processors, and torch sees {there}. Say trainer.devices={there}."
        )


def device_name(device: torch.device) -> str:
    """What people call a device: the model of a graphics processor, or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()


def validate_precision(precision: str, accelerator: str, *, key: str = "trainer.precision") -> None:
    """Raises ValueError for a precision that is unknown, or that this accelerator does not compute in. `key`: what it was said to."""
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown {key} {precision!r}. Choose {', '.join(PRECISIONS)}.")
    kind = find_device(accelerator).type
    if precision in ("tf32", "fp16") and kind != "cuda":
        raise ValueError(f"{key}={precision} is for CUDA only, and this run is on {kind}. Choose bf16 or fp32.")


def disable_tf32() -> None:
    """Has CUDA compute float32 in float32 from here on. Left to itself torch rounds the inputs of convolutions to TF32, and of nothing else."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """A block in which CUDA multiplies float32 matrices, and convolves, with inputs rounded to TF32 where the precision is tf32, and else whole."""
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
    """A block whose matrix products and convolutions are in a precision: `matmul_precision`, and for half precisions torch's autocast."""
    with (
        matmul_precision(precision),
        torch.autocast(kind, dtype=HALF.get(precision, torch.bfloat16), enabled=precision in HALF),
    ):
        yield
