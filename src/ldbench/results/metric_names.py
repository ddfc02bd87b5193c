"""Kinds of figures by name: costs, and reference values to read others by."""

import re

COST = re.compile(
    r"(^|[/_])(params|parameters|flops|gflops|matrix_flops_per_second|utilisation|images_per_second|peak_memory|seconds"
    r"|bytes|latency)([/_]|$)"
)
REFERENCE = re.compile(r"(_floor|/chance)$")  # what a perfect model gets, or one that sees no input


def is_cost(metric: str) -> bool:
    """Whether a figure is what a model costs, not how good it is."""
    return bool(COST.search(metric))


def is_reference(metric: str) -> bool:
    """Whether a figure is a value to read others by."""
    return bool(REFERENCE.search(metric))
