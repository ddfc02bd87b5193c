"""Kinds of figures by name: costs, counts, and reference values to read others by."""

import re

COST = re.compile(
    r"(^|[/_])(params|parameters|flops|gflops|matrix_flops_per_second|utilisation|images_per_second|peak_memory|seconds"
    r"|bytes|latency)([/_]|$)"
)
COUNT = re.compile(r"predict/(tokenizers|families)/.+")  # of job=predict: how many tokenizers a coefficient is over
# what follows the name of a figure in a record, where it is not of the model but a value to read the model's by
ROWS = {"_floor": "perfect generator", "_of_heldout": "held-out images", "_of_training": "training images"}
REFERENCE = re.compile(rf"({'|'.join(ROWS)}|/chance)$")  # chance: a model that sees no input


def is_cost(metric: str) -> bool:
    """Whether a figure is what a model costs, not how good it is."""
    return bool(COST.search(metric))


def is_count(metric: str) -> bool:
    """Whether a figure is a number of tokenizers or of their families."""
    return bool(COUNT.fullmatch(metric))


def is_reference(metric: str) -> bool:
    """Whether a figure is a value to read others by."""
    return bool(REFERENCE.search(metric))


def reference_row(metric: str) -> tuple[str, str] | None:
    """The figure that a value is read beside, and the label of the values' row; None for figures of models."""
    return next(
        ((metric.removesuffix(suffix), label) for suffix, label in ROWS.items() if metric.endswith(suffix)), None
    )
