"""Job `guidance`: one rung is brute force, halving is close to it, and what chose a setting does not measure it."""

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tests.jobs.levels import CLASSES, EULER, Labelled, Pixels, evaluator, generate_job, images
from torch import Tensor

from ldbench.config.compose import Registry, plain
from ldbench.jobs import _guidance_search
from ldbench.jobs._guidance_search import GuidancePoint, grid_of, num_drawn, num_kept
from ldbench.jobs._sample_labels import sample_labels
from ldbench.jobs._sampling_variants import SamplingVariants
from ldbench.jobs.generate import Generate
from ldbench.jobs.guidance import SEARCH_SEEDS, TuneGuidance
from ldbench.metrics.feature_set import Features, gather
from ldbench.metrics.frechet import FrechetDistance
from ldbench.pipeline.stored_records import hashed_settings
from ldbench.sampling.noise import NoiseStream

BEST = 1.7  # the scale at which a stand-in has the levels of its labels
SCALES, INTERVALS = [1.0, 1.5, 2.0, 3.0], [[0.0, 1.0], [0.25, 1.0]]


def yaml_settings() -> dict[str, Any]:
    """The job's yaml, for one process."""
    node = OmegaConf.merge({"trainer": {"devices": 1}}, {"job": Registry().option("job", "guidance")})
    return {key: value for key, value in plain(node)["job"].items() if key != "_target_"}


class Guided:
    """A stand-in for a guidance: says how far its samples are from the levels of their labels."""

    def __init__(self, scale: float, low: float, high: float):
        self.offset = 0.05 * abs(scale - BEST) + 0.02 * low * (scale != 1)

    def __call__(self, field: Any) -> Any:
        return SimpleNamespace(offset=self.offset, items=field.items)


class Shifted(Labelled):
    """A stand-in whose samples are shifted by its guidance, and by `average`."""

    def __init__(self, average: float = 0.0, num_classes: int = CLASSES):
        super().__init__(num_classes)
        self.average = average

    def sample(self, noise: Tensor, y: Tensor, sampler: Any, guidance: Any, *, stream: Any) -> Tensor:
        guided = guidance(SimpleNamespace(items=3 * len(y)))
        return super().sample(noise, y, sampler, guidance, stream=stream) + guided.offset + self.average


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., TuneGuidance]:
    """Builds the job; inputs are changed by keyword."""
    data = images()
    sets = evaluator(tmp_path, "fd", "class_accuracy")

    def make(**changes: Any) -> TuneGuidance:
        generators = {0.9: Shifted(), 0.5: Shifted(0.3)}
        variants = SamplingVariants(
            averages=(0.9, 0.5),
            load_generator=lambda decay: generators[decay],
            build_sampler=lambda num_steps: EULER,
            build_guidance=lambda generator, scale, low, high: Guided(scale, low, high),
        )
        settings = yaml_settings() | {
            "tokenizer": Pixels(),
            "sampling_variants": variants,
            "sampling_seed": 0,
            "data": data,
            "num_samples": 60,
            "labels": "balanced",
            "sets": sets,
            "ratio_sets": {},
            "reference": "train",
            "pixel_rule": "round",
            "scales": SCALES,
            "intervals": INTERVALS,
            "averages": [0.9],
            "rungs": [40],
            "batch_size": 8,
            "part_size": 16,
            "num_processes": 1,
            "device": torch.device("cpu"),
        }
        return TuneGuidance(**{**settings, **changes})

    return make


def by_hand(job: TuneGuidance, point: GuidancePoint, num_samples: int) -> float:
    """The score of a setting, computed on its own from the search's noise."""
    seed = SEARCH_SEEDS + job.sampling_seed
    y = sample_labels("balanced", num_samples, num_classes=CLASSES, seed=seed)
    draws = job.draws(point, seed=seed, y=y)
    features = job.sets.extractor.extract(draws.sample(range(num_samples), torch.device("cpu"))).features
    reference = job.search(Path("unused")).reference
    return FrechetDistance()(gather(Features(features), {"normal"}, strata=y), reference, paired=False).value


def surface(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "surface.json").read_text())["rungs"]


def test_one_rung_is_brute_force(job, tmp_path) -> None:
    tuned = job(averages=None)
    found = tuned.run(tmp_path)
    scores = {point: by_hand(tuned, point, 40) for point in tuned.points}
    assert len(scores) == 2 * (1 + 3 * 2), "the interval has no effect at scale 1"
    for point, score in scores.items():
        assert found[f"guidance/n=40/{point.name}"].value == pytest.approx(score, rel=1e-9)
    best = min(scores, key=lambda point: scores[point])
    chosen = {key: found[f"guidance/chosen_{key}"].value for key in ("scale", "low", "high", "average")}
    assert chosen == {"scale": best.scale, "low": best.low, "high": best.high, "average": best.average}
    assert (best.scale, best.low, best.average) == (1.5, 0.0, 0.9)
    assert "guidance/chosen_steps" not in found, "the sampler's own"
    assert [setting["score"]["value"] for setting in surface(tmp_path)[0]["settings"]] == sorted(
        found[f"guidance/n=40/{point.name}"].value for point in scores
    )


def test_halving_ends_within_the_paired_interval_of_brute_force(job, tmp_path) -> None:
    job(rungs=[80]).run(tmp_path / "brute")
    halved = job(rungs=[20, 40, 80]).run(tmp_path / "halved")
    rungs = surface(tmp_path / "halved")
    assert [len(rung["settings"]) for rung in rungs] == [7, 4, 2]
    chosen = rungs[-1]["settings"][0]
    same = next(
        setting
        for setting in surface(tmp_path / "brute")[0]["settings"]
        if all(setting[key] == chosen[key] for key in ("scale", "low", "high", "steps", "average"))
    )
    assert same["score"] == chosen["score"], "on the same noise"
    assert same["behind_best"]["low"] <= 0
    assert halved["guidance/search_samples"].value == 7 * 20 + 4 * 20 + 2 * 40
    assert halved["guidance/search_calls"].value == 3 * halved["guidance/search_samples"].value
    assert halved["guidance/calls_per_sample"].value == 3


def test_the_chosen_setting_is_measured_as_job_generate_does_and_on_other_noise(job, tmp_path) -> None:
    tuned = job()
    found = tuned.run(tmp_path / "tuned")
    expected = generate_job(tuned.data, tuned.sets)(
        generator=Shifted(), guidance=Guided(1.5, 0.0, 1.0), num_samples=60, save_npz=False
    ).run(tmp_path / "generate")
    assert {name: value for name, value in found.items() if not name.startswith("guidance/")} == expected
    assert tuned.higher_is_better == {"gfd_levels": False, "class_accuracy_levels": True}
    with Image.open(tmp_path / "tuned" / "samples.png") as ours, Image.open(tmp_path / "generate" / "samples.png") as b:
        assert ours.tobytes() == b.tobytes()
    assert sorted(path.name for path in (tmp_path / "tuned").iterdir()) == [
        "samples.png",
        "surface.json",
        "surface.png",
    ]
    shape = (4, 16, 3)
    searched, measured = (NoiseStream(seed, range(4)).normal(0, shape) for seed in (SEARCH_SEEDS, 0))
    assert not torch.isin(searched, measured).any()


def test_an_interruption_leaves_no_trace_and_no_sample_is_drawn_twice(job, tmp_path, monkeypatch) -> None:
    settings = {"rungs": [20, 40]}
    whole = job(**settings).run(tmp_path / "whole")
    write, written = _guidance_search.write_tensors, []

    def interrupted(tensors: Any, path: Path) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(len(tensors["features"]))
        write(tensors, path)

    cut = job(**settings)
    monkeypatch.setattr(_guidance_search, "write_tensors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.run(tmp_path / "cut")
    monkeypatch.undo()
    again = job(**settings)
    assert again.run(tmp_path / "cut") == whole
    assert again.generator(0.9).num_sampled == whole["guidance/search_samples"].value + 60 - sum(written)
    for name in ("surface.json", "surface.png", "samples.png"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("shares_by_forks")
def test_neither_batches_nor_processes_change_the_result(job, tmp_path) -> None:
    whole = job().run(tmp_path / "one")
    for name, changes in (("batches", {"batch_size": 5, "part_size": 7}), ("processes", {"num_processes": 2})):
        found = job(**changes).run(tmp_path / name)
        assert found.keys() == whole.keys()
        for metric, estimate in found.items():
            expected = astuple(whole[metric])
            assert astuple(estimate) == tuple(None if end is None else pytest.approx(end, rel=1e-9) for end in expected)


def test_the_samples_of_a_search_are_known_before_it() -> None:
    points = grid_of([None], [None], [(0.0, 1.0), (0.25, 1.0)], [1.0, 1.5, 2.0])
    assert [(point.scale, point.low) for point in points] == [(1, 0), (1.5, 0), (2, 0), (1.5, 0.25), (2, 0.25)]
    assert [num_kept(5, keep) for keep in (0.01, 0.5, 0.9)] == [1, 3, 5]
    assert num_drawn(5, [10, 30], 0.5) == 5 * 10 + 3 * 20
    assert num_drawn(5, [10], 0.5) == 50


def test_a_difference_of_samples_on_equal_noise_is_narrower_than_that_of_others() -> None:
    rng = torch.Generator().manual_seed(0)
    x, reference = torch.randn(400, 3, generator=rng), torch.randn(2000, 3, generator=rng)
    shifted = (x + 1, x + 1.1, torch.randn(400, 3, generator=rng) + 1.1)
    sets = [gather(Features(features), {"normal"}) for features in shifted]
    metric, real = FrechetDistance(), gather(Features(reference), {"normal"})
    replicates = [metric.replicates(found, real) for found in sets]
    same, other = (found.minus(replicates[0]).estimate() for found in replicates[1:])
    assert same.value == metric(sets[1], real, paired=False).value - metric(sets[0], real, paired=False).value
    assert same.high - same.low < 0.7 * (other.high - other.low)
    assert astuple(replicates[0].minus(replicates[0]).estimate())[:3] == (0, 0, 0)


def test_its_settings_count_as_those_of_job_generate_beside_which_it_is_shown() -> None:
    for changes in ({}, {"precision": "bf16"}, {"compile": True}):
        settings = {**yaml_settings(), "path_geometry": False, **changes}
        assert hashed_settings(TuneGuidance, settings) == hashed_settings(Generate, settings) == changes


def test_what_a_search_cannot_do_is_refused(job) -> None:
    with pytest.raises(
        ValueError, match=r"job\.averages=\[0\.7\]: the artifact holds no average .*0\.7, but 0\.9, 0\.5\."
    ):
        job(averages=[0.7])
    few = images()
    few.num_classes = 3
    with pytest.raises(ValueError, match=r"4 classes, and levels has 3"):
        job(data=few)
    distribution = {name: type(metric) for name, metric in job().sets.metrics.items()}
    TuneGuidance.check_protocol({"target": "fd"}, distribution, "random")
    for target, labels, said in (
        ("kid", "balanced", r"job\.target=kid is none .* This protocol has fd, class_accuracy"),
        ("fd", [1, 2], r"labels=\[1, 2\]: samples of a few classes are only shown"),
    ):
        with pytest.raises(ValueError, match=said):
            TuneGuidance.check_protocol({"target": target}, distribution, labels)
    with pytest.raises(ValueError, match=r"none: choose one with an extractor"):
        TuneGuidance.check_protocol({"target": "fd"}, {}, "balanced")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scales", []),
        ("scales", [1.0, 1.0]),
        ("scales", ["a"]),
        ("intervals", [[0.5, 0.5]]),
        ("intervals", [0.0, 1.0]),
        ("steps", [0]),
        ("averages", [1.5]),
        ("rungs", [10]),
        ("rungs", [40, 20]),
        ("keep", 1.0),
        ("batch_size", 0),
        ("precision", "fp8"),
        ("compile", 1),
    ],
)
def test_settings_out_of_range_are_named(key, value) -> None:
    settings = yaml_settings()
    TuneGuidance.check(settings)
    with pytest.raises(ValueError, match=rf"job\.{key} must"):
        TuneGuidance.check({**settings, key: value})
