"""What a call costs: floating-point operations, memory and time."""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import normal_mean
from ldbench.runtime.device import HALF, Precision, matmul_precision
from ldbench.runtime.flops import FlopCounter

Call = Callable[..., Any]  # (module, *inputs) -> anything

SIDE = {"cuda": 8192, "mps": 4096, "cpu": 512}  # of the matrices whose products tell a device's rate
PRODUCTS = 5  # timed ones, of which the fastest counts


@torch.no_grad()
def flops(module: nn.Module, call: Call, *shapes: Sequence[int] | torch.Tensor) -> int:
    """Floating-point operations of a call for inputs of these shapes (float32), or for given tensors: two for each multiplication and addition.

    Matrix products, convolutions and attention count, by torch's counter; what is done to each element alone does not. Nothing is computed.
    """
    shadow = copy.deepcopy(module).to("meta")
    inputs = [
        given.to("meta") if isinstance(given, torch.Tensor) else torch.empty(tuple(given), device="meta")
        for given in shapes
    ]
    with FlopCounter() as counted, sdpa_kernel(SDPBackend.MATH):  # attention as the products that it stands for
        call(shadow, *inputs)
    return counted.total


@torch.no_grad()
def peak_memory(module: nn.Module, call: Call, *inputs: torch.Tensor, device: torch.device) -> int:
    """Bytes of weights, inputs and intermediate tensors at the moment of a call when they are most.

    On CUDA the allocator's own account. Elsewhere torch's tracker of tensors: what a kernel takes inside itself is not seen.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call(module, *inputs)
        return torch.cuda.max_memory_allocated(device)
    from torch.distributed._tools.mem_tracker import MemTracker  # takes seconds to load

    tracker = MemTracker()
    tracker.track_external(module, *inputs)
    with tracker:
        call(module, *inputs)
    return sum(kinds["Total"] for kinds in tracker.get_tracker_snapshot("peak").values())


@torch.no_grad()
def images_per_second(call: Callable[[], Any], num_images: int, *, repeats: int, device: torch.device) -> Estimate:
    """How many images a call on `num_images` does in a second: by its mean time over repeats, after one that is not timed, with a 95 % interval."""
    seconds = []
    for _ in range(repeats + 1):
        started = now(device)
        call()
        seconds.append(now(device) - started)
    mean = normal_mean(torch.tensor(seconds[1:], dtype=torch.float64))
    if mean.low is None or mean.high is None or mean.low <= 0:
        return Estimate(num_images / mean.value)
    return Estimate(num_images / mean.value, num_images / mean.high, num_images / mean.low)


def matrix_rate(device: torch.device, precision: Precision, *, side: int | None = None) -> float:
    """Floating-point operations a second in the product of two square matrices: what a device can do at best, by the fastest of some."""
    side = SIDE[device.type] if side is None else side
    a, b = (torch.randn(side, side, device=device).to(HALF.get(precision, torch.float32)) for _ in range(2))
    seconds = []
    with matmul_precision(precision):
        for _ in range(PRODUCTS + 1):
            started = now(device)
            a @ b
            seconds.append(now(device) - started)
    return 2 * side**3 / min(seconds[1:])


def now(device: torch.device) -> float:
    """Seconds, after all work that was handed to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
