"""Benchmarks of a call: floating-point operations, peak memory and time."""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import student_mean
from ldbench.runtime.device import HALF, Precision, matmul_precision
from ldbench.runtime.flops import FlopCounter

Call = Callable[..., Any]  # (module, *inputs) -> anything

MATRIX_SIZE = {"cuda": 8192, "mps": 4096, "cpu": 512}  # for measuring a device's rate
NUM_PRODUCTS = 5  # timed products, of which the fastest counts


@torch.no_grad()
def flops(module: nn.Module, call: Call, *shapes: Sequence[int] | torch.Tensor) -> int:
    """Floating-point operations of a call for float32 inputs of these shapes, or for given tensors; a multiply-add is
    two.

    Counts matrix products, convolutions and attention by torch's counter; elementwise operations do not count. Runs on
    the meta device.
    """
    shadow = copy.deepcopy(module).to("meta")
    inputs = [
        shape.to("meta") if isinstance(shape, torch.Tensor) else torch.empty(tuple(shape), device="meta")
        for shape in shapes
    ]
    with FlopCounter() as operations, sdpa_kernel(SDPBackend.MATH):  # attention as matrix products
        call(shadow, *inputs)
    return operations.total


@torch.no_grad()
def peak_memory(module: nn.Module, call: Call, *inputs: torch.Tensor, device: torch.device) -> int:
    """Peak bytes of weights, inputs and intermediate tensors during a call.

    On CUDA by the allocator. Elsewhere by torch's memory tracker, which does not see allocations inside kernels.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call(module, *inputs)
        return torch.cuda.max_memory_allocated(device)
    from torch.distributed._tools.mem_tracker import MemTracker  # takes seconds to import

    tracker = MemTracker()
    frozen = [value for value in module.parameters() if not value.requires_grad]
    for value in frozen:  # the tracker hooks the gradient of every parameter
        value.requires_grad_(True)
    try:
        tracker.track_external(module, *inputs)
        with tracker:
            call(module, *inputs)
    finally:
        for value in frozen:
            value.requires_grad_(False)
    return sum(kinds["Total"] for kinds in tracker.get_tracker_snapshot("peak").values())


@torch.no_grad()
def images_per_second(call: Callable[[], Any], num_images: int, *, repeats: int, device: torch.device) -> Estimate:
    """Images per second of a call on `num_images` images, by its mean time over repeats after a warm-up, with a 95 %
    interval over repeats.
    """
    seconds = []
    for _ in range(repeats + 1):
        started = now(device)
        call()
        seconds.append(now(device) - started)
    mean = student_mean(torch.tensor(seconds[1:], dtype=torch.float64))
    if mean.low is None or mean.high is None or mean.low <= 0:
        return Estimate(num_images / mean.value)
    rate, relative = num_images / mean.value, (mean.standard_error or 0.0) / mean.value
    return Estimate(rate, num_images / mean.high, num_images / mean.low, rate * relative, mean.freedom)


def matrix_rate(device: torch.device, precision: Precision, *, side: int | None = None) -> float:
    """Floating-point operations per second of the product of two square matrices, the fastest of several: the
    device's best rate.
    """
    side = MATRIX_SIZE[device.type] if side is None else side
    a, b = (torch.randn(side, side, device=device).to(HALF.get(precision, torch.float32)) for _ in range(2))
    seconds = []
    with matmul_precision(precision):
        for _ in range(NUM_PRODUCTS + 1):
            started = now(device)
            a @ b
            seconds.append(now(device) - started)
    return 2 * side**3 / min(seconds[1:])


def now(device: torch.device) -> float:
    """Seconds of a monotonic clock, once all work submitted to the device is finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
