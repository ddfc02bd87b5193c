"""Which device `trainer.accelerator` stands for, and what it can train in."""

from typing import Literal

import torch

from ldbench.core.processor import processor_name

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS = ("fp32", "bf16", "fp16")


def find_device(accelerator: str) -> torch.device:
    """The device of an accelerator's name; `auto` is the best that is here. Raises ValueError for one that is not."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return torch.device(next(name for name, available in here.items() if available))
    if not here.get(accelerator, False):
        there = ", ".join(name for name, available in here.items() if available)
        raise ValueError(f"There is no accelerator {accelerator!r} on this machine. Choose trainer.accelerator=auto or one of: {there}.")
    return torch.device(accelerator)


def device_name(device: torch.device) -> str:
    """What people call a device: the model of a graphics processor, or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()


def check_precision(precision: str, accelerator: str) -> None:
    """Raises ValueError for a precision that is unknown, or that this accelerator cannot train in."""
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown trainer.precision {precision!r}. Choose {', '.join(PRECISIONS)}.")
    kind = find_device(accelerator).type
    if precision == "fp16" and kind != "cuda":
        raise ValueError(f"trainer.precision=fp16 trains on CUDA only, and this run is on {kind}. Choose bf16 or fp32.")
