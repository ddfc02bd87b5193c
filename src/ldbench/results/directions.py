"""Which way a metric is better. What is not in this table is shown, and never ranked."""

import re
from typing import Literal

Direction = Literal["higher", "lower"]

HIGHER = ("psnr", "ssim", "ms_ssim", "inception_score", "precision", "recall", "density", "coverage", "class_accuracy")
PROBES = ("probe/accuracy", "probe/knn_accuracy", "probe/attentive_accuracy")
LOWER = ("mse", "lpips", "rfid", "gfid", "sfid", "rfd", "gfd", "sfd", "kid", "rkid", "gkid", "rkd", "gkd")
ON_FEATURES = (
    "class_accuracy",
    "precision",
    "recall",
    "density",
    "coverage",
    "inception_score",
    "rfd",
    "gfd",
    "sfd",
    "kid",
    "rkid",
    "gkid",
    "rkd",
    "gkd",
)
COST = re.compile(
    r"(^|[/_])(params|parameters|flops|gflops|matrix_flops_per_second|utilisation|images_per_second|peak_memory|seconds|bytes|latency)([/_]|$)"
)
REFERENCE = re.compile(r"(_floor|/chance)$")  # what a perfect model, or one that sees nothing, would get


def direction_of(metric: str) -> Direction | None:
    """Which values of a metric are better; None: nobody said. Distances on features carry the extractor's name behind their own: `gfd_digits`."""
    if REFERENCE.search(metric) or is_cost(metric):
        return None
    for direction, names in (("higher", (*HIGHER, *PROBES)), ("lower", LOWER)):
        if metric in names or any(metric.startswith(f"{name}_") for name in names if name in ON_FEATURES):
            return direction  # type: ignore[return-value]
    return None


def is_cost(metric: str) -> bool:
    """Whether a metric is what a model costs, not how good it is."""
    return bool(COST.search(metric))


def is_reference(metric: str) -> bool:
    """Whether a metric is a mark to read others by."""
    return bool(REFERENCE.search(metric))
