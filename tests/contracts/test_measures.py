"""Every metric, of images or of sets, and every extractor fulfills its protocol."""

import math
from collections.abc import Callable

import pytest
import torch
from tests.contracts.untrained import untrained
from torchvision.models.vgg import cfgs, make_layers

from ldbench.artifacts.weights import read_weights
from ldbench.config.components import import_target, instantiate, required_parameters
from ldbench.config.compose import Registry
from ldbench.core.estimate import Estimate
from ldbench.jobs._set_metrics import needs_heldout
from ldbench.metrics.feature_set import Features, gather
from ldbench.pipeline import feature_networks

DISTANCES = [
    name
    for name in sorted(Registry().options("distribution"))
    if import_target(Registry().option("distribution", name)._target_).is_distance
]


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_small_between_similar_and_large_between_different_sets(name: str) -> None:
    distance = instantiate(Registry().option("distribution", name))
    rng = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(200, 6, generator=rng) for _ in range(3))
    sets = [gather(Features(rows, spatial=rows), distance.requires) for rows in (a, b, c + 3, a.flip(0))]
    alike, unlike, flipped = (
        distance(*pair, paired=False).value for pair in (sets[:2], (sets[0], sets[2]), (sets[3], sets[1]))
    )
    assert abs(alike) < unlike
    assert flipped == pytest.approx(alike, rel=1e-9)


@pytest.mark.parametrize(
    "name",
    [name for name in sorted(Registry().options("extractor")) if "network" in Registry().option("extractor", name)],
)
def test_an_extractor_gives_independent_float32_features(name: str) -> None:
    extractor = untrained("extractor", name)
    assert extractor.revision >= 1
    images = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    outputs, first = extractor.extract(images), extractor.extract(images[:1])
    assert {name for name in ("features", "spatial", "logits") if getattr(outputs, name) is not None} == set(
        extractor.provides
    )
    for output in extractor.provides:
        rows = getattr(outputs, output)
        assert rows.ndim == 2
        assert rows.dtype == torch.float32
        assert not rows.requires_grad
        torch.testing.assert_close(getattr(first, output), rows[:1], rtol=1e-4, atol=1e-5)
    assert torch.equal(extractor.features(images), outputs.features)


@pytest.mark.parametrize("name", sorted(Registry().options("distribution")))
def test_a_metric_on_sets_is_a_finite_number_within_its_interval(name: str) -> None:
    metric = instantiate(Registry().option("distribution", name))
    assert metric.revision >= 1
    assert metric.requires <= {"normal", "spatial", "features", "logits", "labels"}
    assert isinstance(metric.is_distance, bool)
    rng = torch.Generator().manual_seed(0)
    sets = [Features(*(torch.randn(count, 5, generator=rng) for _ in range(3))) for count in (40, 30, 50)]
    # what it needs is enough
    seen = [gather(given, metric.requires, labels=torch.arange(len(given.features)) % 5) for given in sets]
    found = metric(*seen[:2], heldout=seen[2]) if needs_heldout(metric) else metric(*seen[:2], paired=False)
    assert isinstance(found, Estimate)
    assert found.low <= found.value <= found.high
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)


def metric_of(name: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A metric on random weights of their true shape."""
    node = Registry().option("metric", name)
    if "weights" not in node:
        return instantiate(node)
    torch.manual_seed(0)
    weights = {f"features.{key}": value for key, value in make_layers(cfgs["D"], batch_norm=False).state_dict().items()}
    heads = read_weights("torchmetrics://lpips_vgg")
    settings = {"weights": weights, "heads": heads, "sha256": "397923af"}
    return import_target(node._target_)(**{key: settings[key] for key in required_parameters(node._target_)})


@pytest.mark.parametrize("name", sorted(Registry().options("metric")))
def test_a_metric_gives_each_image_its_own_value_in_double_precision(name: str) -> None:
    metric = metric_of(name)
    side = 161 if name == "ms_ssim" else 32  # five scales need so many
    images, recon = torch.randint(
        0, 256, (2, 3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    figures = metric(images, recon)
    assert figures.shape == (3,)
    assert figures.dtype == torch.float64
    torch.testing.assert_close(metric(images[1:2], recon[1:2]), figures[1:2], rtol=1e-4, atol=1e-9)


def test_no_metric_judges_by_the_teacher_of_the_same_data() -> None:
    extractor, teacher = (
        feature_networks.network_digest(Registry().option(group, "digits").network)
        for group in ("extractor", "teacher")
    )
    assert extractor != teacher


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in ("metric", "distribution") for name in sorted(Registry().options(group))],
)
def test_a_metric_names_the_settings_that_count_and_whether_larger_values_are_better(group: str, name: str) -> None:
    node = Registry().options(group)[name]
    metric = import_target(node["_target_"])
    assert metric.higher_is_better in (True, False, None)
    assert set(getattr(metric, "settings", ())) == node.keys() - {"_target_", "weights", "heads"}
