"""Metrics on sets agree with torch-fidelity and torchmetrics to 1e-4 and with ADM's definitions; batches do not
matter.
"""

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.jobs._set_metrics import needs_heldout
from ldbench.metrics.feature_set import FeatureAccumulator, Features, FeatureSet, gather

REQUIRES = ("normal", "spatial", "features", "logits", "labels")
EVERY = tuple(sorted(Registry().options("distribution")))


def draw(count: int, width: int, *, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Features like those of networks: mixed and rectified."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(0)) / width**0.5
    return (torch.randn(count, width, generator=rng) @ mix * scale + 0.2).relu()


def features(count: int, width: int, **keywords) -> Features:
    rows = draw(count, width, **keywords)
    return Features(rows, spatial=rows.flip(1), logits=rows[:, :7] * 3)


def gathered(batch: Features) -> FeatureSet:
    return gather(batch, REQUIRES, labels=torch.arange(len(batch.features)) % 7)


def unlabeled(batch: Features) -> FeatureSet:
    return gather(batch, {"features"})


def metric(name: str, **keywords):
    return instantiate(Registry().option("distribution", name), **keywords)


def call(measure, samples: FeatureSet, reference: FeatureSet):
    """A metric's estimate, whatever it is compared with."""
    if needs_heldout(measure):
        return measure(samples, reference, heldout=gathered(features(50, 12, seed=9)))
    return measure(samples, reference, paired=False)


@pytest.fixture(
    params=[(600, 500, 48), (60, 500, 96), (40, 50, 96)], ids=["full rank", "one lacks rank", "both lack rank"]
)
def pair(request: pytest.FixtureRequest) -> tuple[Features, Features]:
    first, second, width = request.param
    return features(first, width, seed=1, scale=1.3), features(second, width, seed=2)


@pytest.fixture
def fidelity() -> ModuleType:
    return pytest.importorskip("torch_fidelity", reason="needs the extra `fidelity`")


def test_frechet_is_torch_fidelitys_and_torchmetrics(pair: tuple[Features, Features], fidelity: ModuleType) -> None:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    found = metric("fd")(*map(gathered, pair), paired=False).value
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(part.features.double()) for part in pair), False)[
        KEY_METRIC_FID
    ]
    rows = [part.features.double() for part in pair]
    torchmetrics = _compute_fid(rows[0].mean(0), torch.cov(rows[0].T), rows[1].mean(0), torch.cov(rows[1].T)).item()
    assert found == pytest.approx(theirs, rel=1e-4)
    assert found == pytest.approx(torchmetrics, rel=1e-4)


def test_kid_is_torch_fidelitys_and_torchmetrics_of_one_subset_of_all_images(fidelity: ModuleType) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    a, b = features(300, 48, seed=1, scale=1.3), features(300, 48, seed=2)
    found = metric("kid")(unlabeled(a), unlabeled(b), paired=False).value
    theirs = kid_features_to_metric(
        a.features.double(), b.features.double(), kid_subsets=1, kid_subset_size=300, verbose=False
    )
    assert found == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-4)
    assert found == pytest.approx(poly_mmd(b.features.double(), a.features.double()).item(), rel=1e-4)


def test_kid_is_what_random_subsets_estimate(fidelity: ModuleType) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    a, b = features(2000, 16, seed=1, scale=1.3), features(1500, 16, seed=2)
    found = metric("kid")(unlabeled(a), unlabeled(b), paired=False).value
    theirs = kid_features_to_metric(
        a.features.double(), b.features.double(), kid_subsets=100, kid_subset_size=200, verbose=False
    )
    assert abs(found - theirs[KEY_METRIC_KID_MEAN]) < 4 * theirs[KEY_METRIC_KID_STD] / 10


def test_precision_and_recall_are_torch_fidelitys(pair: tuple[Features, Features], fidelity: ModuleType) -> None:
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    theirs = prc_features_to_metric(
        pair[0].features.double(), pair[1].features.double(), prc_neighborhood=3, verbose=False
    )
    for name, key in (("precision", KEY_METRIC_PRECISION), ("recall", KEY_METRIC_RECALL)):
        assert metric(name)(*map(gathered, pair), paired=False).value == pytest.approx(theirs[key], rel=1e-4)


def test_the_inception_score_is_torch_fidelitys_without_shuffling(
    pair: tuple[Features, Features], fidelity: ModuleType
) -> None:
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    found = metric("inception_score")(*map(gathered, pair), paired=False).value
    assert found == pytest.approx(
        isc_features_to_metric(pair[0].logits, 10, shuffle=False)[KEY_METRIC_ISC_MEAN], rel=1e-4
    )


def test_adms_definitions_on_given_features(pair: tuple[Features, Features]) -> None:
    """Its evaluator in numpy: consecutive splits for the score, balls to the third neighbor, and numpy's covariance
    for sFID.
    """
    samples, reference = pair
    probabilities = samples.logits.double().softmax(dim=1).numpy()
    scores = []
    for part in np.array_split(probabilities, 10):
        if len(part):
            divergence = part * (np.log(part) - np.log(part.mean(axis=0, keepdims=True)))
            scores.append(np.exp(divergence.sum(axis=1).mean()))
    rows = [part.features.double().numpy() for part in pair]
    radius = [np.sort(np.linalg.norm(x[:, None] - x[None], axis=2), axis=1)[:, 3] for x in rows]
    distances = np.linalg.norm(rows[0][:, None] - rows[1][None], axis=2)
    values = {
        name: metric(name)(gathered(samples), gathered(reference), paired=False).value
        for name in ("inception_score", "precision", "recall", "sfd")
    }
    spatial = [part.spatial.double() for part in pair]
    gaussians = [(x.mean(0), torch.from_numpy(np.cov(x.numpy(), rowvar=False))) for x in spatial]
    assert values["precision"] == pytest.approx((distances <= radius[1][None]).any(axis=1).mean(), rel=1e-9)
    assert values["recall"] == pytest.approx((distances <= radius[0][:, None]).any(axis=0).mean(), rel=1e-9)
    assert values["sfd"] == pytest.approx(_compute_fid(*gaussians[0], *gaussians[1]).item(), rel=1e-4)
    if len(probabilities) % 10 == 0:
        assert values["inception_score"] == pytest.approx(np.mean(scores), rel=1e-9)


@pytest.mark.parametrize("name", EVERY)
@examples(6)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 80),
    processes=st.integers(1, 3),
    scale=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_no_metric_depends_on_batches_order_or_processes(
    name: str, seed: int, size: int, processes: int, scale: float
) -> None:
    a, b, measure = features(80, 12, seed=seed, scale=1.2), features(60, 12, seed=seed + 1), metric(name)
    a, b = (Features(part.features * scale, part.spatial * scale, part.logits) for part in (a, b))
    order = torch.randperm(80, generator=torch.Generator().manual_seed(seed))
    accumulators = [FeatureAccumulator(80, REQUIRES, 80) for _ in range(processes)]
    for turn, indices in enumerate(order.split(size)):
        batch = Features(a.features[indices], a.spatial[indices], a.logits[indices])
        accumulators[turn % processes].update(indices, batch, indices % 7)
    for other in reversed(accumulators[1:]):
        accumulators[0].merge(other)
    found, expected = (call(measure, samples, gathered(b)) for samples in (accumulators[0].finish(), gathered(a)))
    magnitude = max(abs(expected.value), expected.high - expected.low)  # some may be about zero
    assert found.value == pytest.approx(expected.value, rel=1e-9, abs=1e-9 * magnitude)
    assert [found.low, found.high] == pytest.approx([expected.low, expected.high], rel=1e-6, abs=1e-9 * magnitude)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("inception_score",)])
def test_no_metric_but_the_score_in_splits_depends_on_the_order_of_images(name: str) -> None:
    # of two sets `mind` cuts the larger by index: of equal ones no order counts either
    a, b = features(80, 12, seed=1, scale=1.2), features(80 if name == "mind" else 60, 12, seed=2)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(80) % 7
    renumbered = gather(Features(a.features[order], a.spatial[order], a.logits[order]), REQUIRES, labels=labels[order])
    assert call(metric(name), renumbered, gathered(b)).value == pytest.approx(
        call(metric(name), gathered(a), gathered(b)).value, rel=1e-9
    )
