"""Statistics are numpy's in float64 on everything at once, however the set is cut."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples
from torch import Tensor

from ldbench.data.latents.statistics import ROWS, Statistics, combine


def posteriors(rows: int, *, offset: float = 3.0, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    mean = torch.randn(rows, 1, 4, 3, generator=rng) * torch.tensor([0.1, 1.0, 20.0]) + offset * torch.arange(3)
    return torch.cat([mean, torch.randn(rows, 1, 4, 3, generator=rng) - 2], dim=1).to(dtype)


def check(statistics: Statistics, moments: Tensor) -> None:
    means = moments[:, 0].double().numpy().reshape(-1, 3)
    variance = np.exp(moments[:, 1].double().numpy()).reshape(-1, 3) if moments.shape[1] == 2 else np.zeros_like(means)
    tight = {"rel": 1e-12, "abs": 1e-300}
    assert statistics.count == len(means)
    assert statistics.mean.numpy() == pytest.approx(means.mean(0), **tight)
    assert statistics.std("means").numpy() == pytest.approx(means.std(0), **tight)
    assert statistics.std().numpy() == pytest.approx(np.sqrt(means.var(0) + variance.mean(0)), **tight)
    overall = statistics.overall()
    assert overall.mean.item() == pytest.approx(means.mean(), **tight)
    assert overall.std("means").item() == pytest.approx(means.std(), **tight)
    assert overall.std().item() == pytest.approx(np.sqrt(means.var() + variance.mean()), **tight)


@examples(40)
@given(
    rows=st.integers(1, 3 * ROWS),
    cuts=st.lists(st.integers(1, 3 * ROWS), max_size=6),
    offset=st.sampled_from([0.0, 3.0, 1e4]),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_they_are_those_of_the_whole_in_any_parts(
    dtype: torch.dtype, rows: int, cuts: list[int], offset: float
) -> None:
    moments = posteriors(rows, offset=offset, seed=rows, dtype=dtype)
    borders = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    parts = [moments[a:b] for a, b in pairwise(borders)]
    check(combine([Statistics.of(part) for part in parts]), moments)


def test_points_have_no_variance_of_their_own() -> None:
    points = posteriors(30)[:, :1]
    statistics = Statistics.of(points)
    check(statistics, points)
    assert torch.equal(statistics.std(), statistics.std("means"))
    assert torch.isinf(statistics.signal_to_noise()).all()


def test_the_deviation_of_samples_is_that_of_drawn_samples() -> None:
    moments = posteriors(4000)
    eps = torch.randn(4000, 4, 3, generator=torch.Generator().manual_seed(1))
    drawn = moments[:, 0] + (moments[:, 1] / 2).exp() * eps
    assert Statistics.of(moments).std().numpy() == pytest.approx(
        drawn.double().flatten(0, 1).std(dim=0).numpy(), rel=0.02
    )


def test_numbers_carry_them_to_the_last_bit() -> None:
    statistics = Statistics.of(posteriors(100))
    again = Statistics.from_dict(statistics.to_dict())
    assert again.count == statistics.count
    assert all(
        torch.equal(getattr(again, name), getattr(statistics, name))
        for name in ("mean", "variance_of_means", "mean_variance")
    )


def test_signal_to_noise_is_a_quotient_of_variances() -> None:
    # means -2 and 2, variance 1
    moments = torch.stack([torch.tensor([[-2.0], [2.0]]), torch.zeros(2, 1)], dim=1)[..., None]
    assert Statistics.of(moments).signal_to_noise().item() == pytest.approx(4.0)
