"""Expectation-maximization: it recovers the mixture behind the points, and agrees with scikit-learn step by step."""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ldbench.analysis.gmm.curve import FitSettings, affordable_sizes, fit_mixture, fit_single_gaussian
from ldbench.analysis.gmm.densities import Densities, log_densities
from ldbench.analysis.gmm.em import expect, fit, maximize
from ldbench.analysis.gmm.features import features, num_features
from ldbench.analysis.gmm.mixture import KINDS, Kind, Mixture
from ldbench.analysis.gmm.points import PointsInMemory
from ldbench.analysis.gmm.start import initialize

SKLEARN = {"diagonal": "diag", "full": "full", "tied": "tied"}
CPU = torch.device("cpu")


def truth(kind: Kind, num: int = 4, dim: int = 3) -> Mixture:
    """A mixture of well separated components."""
    rng = torch.Generator().manual_seed(3)
    means = 6 * torch.eye(num, dim, dtype=torch.float64) - torch.arange(num, dtype=torch.float64)[:, None]
    shape = torch.randn(num, dim, dim, generator=rng, dtype=torch.float64) / 2
    full = shape @ shape.mT + 0.3 * torch.eye(dim, dtype=torch.float64)
    covariances = {"diagonal": full.diagonal(dim1=-2, dim2=-1), "full": full, "tied": full[0]}[kind]
    weights = torch.arange(1, num + 1, dtype=torch.float64)
    return Mixture(kind, (weights / weights.sum())[None], means[None], covariances[None].contiguous())


def covariances_of(mixture: Mixture) -> Tensor:  # (K, D, D)
    """The covariance of each component of the first mixture, for any kind."""
    one = mixture.covariances[0]
    return {
        "diagonal": torch.diag_embed,
        "full": lambda c: c,
        "tied": lambda c: c.expand(mixture.num_components, -1, -1),
    }[mixture.kind](one)


def drawn(mixture: Mixture, count: int, seed: int) -> Tensor:  # (count, D) float32
    rng = torch.Generator().manual_seed(seed)
    member = torch.multinomial(mixture.weights[0], count, replacement=True, generator=rng)
    noise = torch.randn(count, mixture.dim, generator=rng, dtype=torch.float64)
    lower = torch.linalg.cholesky(covariances_of(mixture))
    return (mixture.means[0, member] + torch.einsum("nde,ne->nd", lower[member], noise)).float()


def directly(mixture: Mixture, x: Tensor) -> Tensor:  # (n,)
    """log p by torch.distributions, in float64."""
    each = torch.distributions.MultivariateNormal(mixture.means[0], covariances_of(mixture)).log_prob(
        x.double()[:, None]
    )
    return (each + mixture.weights[0].log()).logsumexp(dim=1)


def initial(x: Tensor, kind: Kind, num: int, *, restarts: int = 1, seed: int = 0) -> Mixture:
    """Means on drawn points, and unit covariances."""
    rng, dim = torch.Generator().manual_seed(seed), x.shape[1]
    means = torch.stack([x[torch.randperm(len(x), generator=rng)[:num]] for _ in range(restarts)]).double()
    eye = torch.eye(dim, dtype=torch.float64)
    covariances = {
        "diagonal": torch.ones_like(means),
        "full": eye.repeat(restarts, num, 1, 1),
        "tied": eye.repeat(restarts, 1, 1),
    }[kind]
    return Mixture(kind, torch.full((restarts, num), 1 / num, dtype=torch.float64), means, covariances)


@pytest.mark.parametrize("kind", KINDS)
def test_it_recovers_a_known_mixture_and_its_density(kind: Kind) -> None:
    known = truth(kind)
    train, heldout = drawn(known, 20_000, seed=0), drawn(known, 20_000, seed=1)
    settings = FitSettings(kind=kind, num_restarts=3, max_iter=200, tolerance=1e-6, floor=0.0)
    found = fit_mixture(PointsInMemory(train), PointsInMemory(heldout), num_components=4, settings=settings, seed=0)
    order = torch.cdist(known.means[0], found.mixture.means[0]).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(found.mixture.weights[0, order], known.weights[0], atol=0.015, rtol=0)
    torch.testing.assert_close(found.mixture.means[0, order], known.means[0], atol=0.06, rtol=0)
    torch.testing.assert_close(covariances_of(found.mixture)[order], covariances_of(known), atol=0.12, rtol=0)
    true = -directly(known, heldout)
    excess = found.heldout_nll - true  # positive in the mean, and as small as the estimated parameters are few
    assert excess.mean().item() == pytest.approx(0, abs=0.01)
    assert found.converged
    assert found.mixture.effective_components().item() == pytest.approx(
        math.exp(torch.special.entr(known.weights).sum()), abs=0.05
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_criteria_find_the_number_of_components(kind: Kind) -> None:
    known = truth(kind)
    train, heldout = PointsInMemory(drawn(known, 4000, seed=0)), PointsInMemory(drawn(known, 2000, seed=1))
    settings = FitSettings(kind=kind, num_restarts=3, max_iter=200, tolerance=1e-5, floor=1e-6)
    found = {size: fit_mixture(train, heldout, num_components=size, settings=settings, seed=0) for size in (2, 4, 8)}
    assert min(found, key=lambda size: found[size].bic) == 4
    assert found[2].heldout_nll.mean() > found[4].heldout_nll.mean() + 0.1
    likelihood = -2 * 4000 * found[4].train_nll
    parameters = 3 + 12 + {"diagonal": 12, "full": 24, "tied": 6}[kind]
    assert found[4].mixture.num_parameters() == parameters
    assert found[4].bic == pytest.approx(-likelihood + parameters * math.log(4000))
    assert found[4].aic == pytest.approx(-likelihood + 2 * parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_scikit_learn_on_the_same_start(kind: Kind, dtype: torch.dtype) -> None:
    x = drawn(truth(kind, num=6, dim=5), 3000, seed=0)
    first = initial(x, kind, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = GaussianMixture(
            7,
            covariance_type=SKLEARN[kind],
            max_iter=30,
            tol=0,
            reg_covar=1e-6,
            weights_init=first.weights[0].numpy(),
            means_init=first.means[0].numpy(),
            precisions_init=first.covariances[0].numpy(),  # ones are their own inverse
        ).fit(x.double().numpy())
    ours = fit(PointsInMemory(x), first, floor=1e-6, max_iter=30, tolerance=0.0, dtype=dtype)
    # a hundred float32 roundings of a log-density of ten nats; thirty steps carry them along
    near = {"rtol": 0, "atol": 1e-3 if dtype == torch.float32 else 1e-9}
    for mine, other in (
        (ours.mixture.weights, theirs.weights_),
        (ours.mixture.means, theirs.means_),
        (ours.mixture.covariances, theirs.covariances_),
    ):
        torch.testing.assert_close(mine[0], torch.from_numpy(np.asarray(other)), **near)
    assert ours.log_likelihood.item() == pytest.approx(theirs.lower_bound_, abs=near["atol"] / 100)
    mine = torch.cat(list(log_densities(ours.mixture, PointsInMemory(x), dtype=dtype)))[:, 0]
    torch.testing.assert_close(mine, torch.from_numpy(theirs.score_samples(x.double().numpy())), **near)
    assert ours.mixture.num_parameters() == theirs._n_parameters()


@pytest.mark.parametrize("kind", KINDS)
def test_densities_are_those_of_torch(kind: Kind) -> None:
    known = truth(kind)
    x = drawn(known, 500, seed=0)
    (found,) = log_densities(known, PointsInMemory(x))
    torch.testing.assert_close(found[:, 0], directly(known, x), atol=2e-4, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_restarts_in_a_batch_are_independent(kind: Kind) -> None:
    x = drawn(truth(kind), 600, seed=0)
    first = initial(x, kind, 4, restarts=3)
    settings = {"floor": 1e-6, "max_iter": 40, "tolerance": 1e-3, "dtype": torch.float64}
    together = fit(PointsInMemory(x), first, **settings)
    assert len(set(together.iterations.tolist())) > 1
    for restart in range(3):
        alone = fit(PointsInMemory(x), first.select(torch.tensor([restart])), **settings)
        assert alone.iterations.item() == together.iterations[restart]
        torch.testing.assert_close(alone.mixture.means[0], together.mixture.means[restart])
        torch.testing.assert_close(alone.log_likelihood[0], together.log_likelihood[restart])
    assert together.best().log_likelihood.item() == together.log_likelihood.max().item()


@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_never_falls(kind: Kind) -> None:
    x = PointsInMemory(drawn(truth(kind), 800, seed=0))
    mixture, before = initial(x.x, kind, 6), -math.inf
    for _ in range(25):
        moments = expect(x, mixture, dtype=torch.float64)
        assert moments.log_likelihood.item() >= before - 1e-12
        mixture, before = maximize(mixture, moments, floor=0.0), moments.log_likelihood.item()


class SmallChunks(PointsInMemory):
    """Points in smaller chunks than requested, with the size of the largest."""

    largest = 0

    def chunks(self, size: int) -> Iterator[Tensor]:
        for chunk in self.x.split(37):
            self.largest = max(self.largest, len(chunk))
            yield chunk


@pytest.mark.parametrize("kind", KINDS)
def test_points_may_come_in_any_chunks(kind: Kind) -> None:
    x = drawn(truth(kind), 1000, seed=0)
    few, first = SmallChunks(x), initial(x, kind, 5)
    settings = {"floor": 1e-6, "max_iter": 10, "tolerance": 0.0}
    once, often = fit(PointsInMemory(x), first, **settings), fit(few, first, **settings)
    assert few.largest == 37
    torch.testing.assert_close(often.mixture.means, once.mixture.means, atol=1e-4, rtol=0)
    torch.testing.assert_close(often.log_likelihood, once.log_likelihood, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_narrow_components_far_from_zero_lose_no_precision_in_float32(kind: Kind) -> None:
    """Two spikes 0.002 wide at a distance of 50: expanded in float32, each log-density would be off by tens of nats."""
    rng = torch.Generator().manual_seed(0)
    centers = torch.tensor([[50.0, 50.0], [50.0, 50.02]], dtype=torch.float64)
    x = (
        centers.repeat_interleave(500, dim=0) + 0.002 * torch.randn(1000, 2, generator=rng, dtype=torch.float64)
    ).float()
    eye = 4e-6 * torch.eye(2, dtype=torch.float64)
    covariances = {
        "diagonal": torch.full((1, 2, 2), 4e-6, dtype=torch.float64),
        "full": eye.repeat(1, 2, 1, 1),
        "tied": eye[None],
    }[kind]
    first = Mixture(kind, torch.full((1, 2), 0.5, dtype=torch.float64), centers[None], covariances)
    assert len(Densities(first, dtype=torch.float32).narrow) == 2
    assert len(Densities(first, dtype=torch.float64).narrow) == 0
    single, double = (
        fit(PointsInMemory(x), first, floor=0.0, max_iter=3, tolerance=0.0, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    assert single.log_likelihood.item() == pytest.approx(double.log_likelihood.item(), abs=0.02)
    torch.testing.assert_close(single.mixture.means, double.mixture.means, atol=2e-5, rtol=0)
    torch.testing.assert_close(single.mixture.covariances, double.mixture.covariances, atol=2e-8, rtol=0)


def test_one_gaussian_is_the_mean_and_the_covariance() -> None:
    x = drawn(truth("full"), 500, seed=0)
    found = fit_single_gaussian(PointsInMemory(x), PointsInMemory(x), floor=0.0)
    torch.testing.assert_close(found.mixture.means[0, 0], x.double().mean(dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.mixture.covariances[0, 0], x.double().T.cov(correction=0), atol=1e-4, rtol=0)
    entropy = 0.5 * torch.linalg.slogdet(2 * math.pi * math.e * found.mixture.covariances[0, 0]).logabsdet
    assert found.train_nll == pytest.approx(entropy.item(), abs=1e-4)  # of a Gaussian on its own points, exactly


def test_a_component_without_points_is_unchanged() -> None:
    x = drawn(truth("full"), 300, seed=0)
    first = initial(x, "full", 3)
    first.means[0, 2] = 1e4
    found = fit(PointsInMemory(x), first, floor=1e-6, max_iter=5, tolerance=0.0).mixture
    torch.testing.assert_close(found.means[0, 2], first.means[0, 2])
    assert found.weights[0, 2] < 1e-8
    assert found.weights.sum().item() == pytest.approx(1)


def test_features_are_the_documented_ones() -> None:
    x = torch.tensor([[2.0, 3.0]])

    def values(kind: Kind) -> list[float]:
        return features(x, kind, out=torch.empty(num_features(kind, 2), 4)).flatten().tolist()

    assert values("diagonal") == [1, 2, 3, 4, 9]
    assert values("full") == [1, 2, 3, 4, 6, 9]
    assert values("tied") == [1, 2, 3]


def test_an_initialization_is_reproducible_and_lies_on_clusters() -> None:
    known = truth("full")
    x = PointsInMemory(drawn(known, 2000, seed=0))

    def make(seed: int) -> Mixture:
        rng = torch.Generator().manual_seed(seed)
        return initialize(x, "full", num_components=4, num_restarts=2, floor=0.0, rng=rng)

    first = make(0)
    assert torch.equal(first.means, make(0).means)
    assert not torch.equal(first.means, make(1).means)
    assert torch.cdist(known.means[0], first.means[0]).min(dim=1).values.max() < 0.5
    torch.testing.assert_close(first.covariances[0, 0], first.covariances[0, 3])


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fit(
            PointsInMemory(torch.full((4, 2), torch.nan)),
            initial(torch.zeros(4, 2), "full", 2),
            floor=1e-6,
            max_iter=1,
            tolerance=0.0,
        )
    with pytest.raises(ValueError, match="needs at least as many points, got 3"):
        initialize(
            PointsInMemory(torch.zeros(3, 2)),
            "full",
            num_components=4,
            num_restarts=1,
            floor=0.0,
            rng=torch.Generator(),
        )
    same = initial(torch.zeros(9, 2), "full", 1)
    with pytest.raises(ValueError, match="1 of the full covariances of 1 components are not positive definite"):
        fit(PointsInMemory(torch.zeros(9, 2)), same, floor=0.0, max_iter=2, tolerance=0.0)
    with pytest.raises(ValueError, match="must be one of diagonal, full, tied, got 'round'"):
        Mixture("round", same.weights, same.means, same.covariances)
    with pytest.raises(ValueError, match="go with weights of shape"):
        Mixture("diagonal", same.weights, same.means, same.covariances)
    assert affordable_sizes([5, 10, 20], 199) == [5, 10]


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: make test-gpu on a machine that has one"
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cuda_device_gives_the_same(kind: Kind) -> None:
    x = drawn(truth(kind), 2000, seed=0)
    first = initial(x, kind, 5)
    on_cpu, on_cuda = (
        fit(PointsInMemory(x.to(device)), first, floor=1e-6, max_iter=10, tolerance=0.0) for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(on_cuda.mixture.means.cpu(), on_cpu.mixture.means, atol=1e-3, rtol=0)
    assert on_cuda.log_likelihood.item() == pytest.approx(on_cpu.log_likelihood.item(), abs=1e-4)
