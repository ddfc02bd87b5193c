"""The interval of the velocity variance covers it in 90 to 98 %, and what remains of its bias is below 1 %."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ldbench.analysis.velocity_variance import (
    full_spectrum,
    irreducible_variance,
    kronecker_spectrum,
    velocity_variance,
)
from ldbench.core.strata import combine_strata
from tests.simulations.rates import check_coverage, report

pytestmark = pytest.mark.slow

LARGEST_BIAS = 0.01


def decaying(size: int, correlation: float) -> Tensor:
    positions = torch.arange(size, dtype=torch.float64)
    return correlation ** (positions[:, None] - positions[None]).abs()


def kronecker(z: Tensor) -> Tensor:
    return kronecker_spectrum(z, iterations=30, ridge=1e-6).eigenvalues


CASES: dict[str, tuple[Callable[[Tensor], Tensor], int, Tensor, Tensor]] = {
    "8 x 4 numbers of 140 images a class, full": (full_spectrum, 140, decaying(8, 0.8), decaying(4, 0.4)),
    "16 x 4 equal numbers of 140 images a class, full": (full_spectrum, 140, decaying(16, 0.0), decaying(4, 0.0)),
    "16 x 8 numbers of 140 images a class, Kronecker": (kronecker, 140, decaying(16, 0.9), decaying(8, 0.4)),
    "16 x 8 numbers of 20 images a class, Kronecker": (kronecker, 20, decaying(16, 0.9), decaying(8, 0.4)),
}


@pytest.mark.parametrize("name", CASES)
def test_velocity_variances(name: str) -> None:
    """Means over three classes of one law. The truth for coverage is the mean over all repetitions."""
    spectrum, count, rows, columns = CASES[name]
    spatial, channel = torch.linalg.cholesky(rows), torch.linalg.cholesky(columns)
    rng = torch.Generator().manual_seed(count)
    found = []
    for _ in range(400):
        latents = (
            spatial @ torch.randn(count, len(rows), len(columns), generator=rng, dtype=torch.float64) @ channel.T
            for _ in range(3)
        )
        found.append(combine_strata([velocity_variance(z, spectrum, rng=rng) for z in latents], [1 / 3] * 3))
    mean = sum(estimate.value for estimate in found) / len(found)
    law = irreducible_variance(torch.outer(*map(torch.linalg.eigvalsh, (rows, columns))))
    check_coverage(f"a velocity variance, {name}", found, mean)
    report(f"mean velocity variance over that of the law, {name}", f"{mean / law:.4f}")
    assert abs(mean / law - 1) < LARGEST_BIAS
