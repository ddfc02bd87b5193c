"""One pass serves every metric on sets, and features of real images are computed once."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.pixels import to_uint8
from ldbench.jobs._set_metrics import SetEvaluator, validate_kept
from ldbench.metrics import adm_npz
from ldbench.metrics.feature_set import Features, gather, set_to_tensors

from .conftest import Colors


def evaluator(folder: Path, *names: str, kept: int = 100, extractor: Any = None, digest: str = "a") -> SetEvaluator:
    metrics = {name: instantiate(Registry().option("distribution", name)) for name in names}
    facts = {"kept": kept, "folder": folder, "workers": 0, "device": torch.device("cpu")}
    return SetEvaluator(label="colors", extractor=extractor or Colors(), key=digest, metrics=metrics, **facts)


EVERY = tuple(sorted(Registry().options("distribution")))


def reference(
    sets: SetEvaluator,
    data: Any,
    split: str = "test",
    batch_size: int = 8,
    pixel_rule: str = "round",
    num_processes: int = 1,
):
    return sets.split_features(data, split, pixel_rule=pixel_rule, batch_size=batch_size, num_processes=num_processes)


def test_every_metric_is_measured_and_named_after_its_extractor(data: Any, tmp_path: Path) -> None:
    sets = evaluator(tmp_path, *EVERY)
    real = reference(sets, data)
    collector = sets.collector(30)
    images = to_uint8(data.test.tensors[0])
    for first in range(0, 30, 7):
        collector.update(first, images[first : first + 7], data.test.tensors[1][first : first + 7])
    samples = collector.finish()
    found = dict(sets.measure(samples, real, prefix="g", paired=False))
    assert found["gfd_colors"].value == 0.0
    names = {"gfd_colors" if name == "fd" else f"{name}_colors" for name in EVERY}
    names -= {"memorization_colors", "fdr_colors"}
    assert set(found) == names
    training = reference(sets, data, "train")
    splits = dict(sets.compare_with_splits(samples, training, real, prefix="g"))
    assert set(splits) == {"memorization_colors"}
    beside = dict(sets.compare_with_heldout(samples, training, real, prefix="g"))
    assert {name: estimate.value for name, estimate in beside.items()} == {"fdr_colors": 1.0}
    assert set(dict(sets.measure_real(real, training, "heldout", prefix="g"))) == {
        f"{name}_of_heldout" for name in names
    }


def test_real_images_that_are_too_few_for_a_metric_are_left_out(data: Any, tmp_path: Path, caplog) -> None:
    sets = evaluator(tmp_path, "fd", "density")
    training = reference(sets, data, "train")
    few = gather(Features(torch.randn(4, training.features.shape[1])), sets.requires)
    with caplog.at_level(logging.INFO, logger="ldbench"):
        assert set(dict(sets.measure_real(few, training, "heldout", prefix="g"))) == {"gfd_colors_of_heldout"}
    assert "density is not measured for heldout images" in caplog.text


def test_copies_are_looked_for_among_all_training_images_or_not_at_all(data: Any, tmp_path: Path) -> None:
    metrics = evaluator(tmp_path, "memorization", "fd").metrics
    validate_kept(metrics, len(data.train), 50)
    with pytest.raises(ValueError, match=r"memorization needs .* all 50 training images, and protocol\.kept=20"):
        validate_kept(metrics, len(data.train), 20)


def test_of_reconstructions_what_their_own_originals_decide_is_not_measured(data: Any, tmp_path: Path) -> None:
    sets = evaluator(tmp_path, *EVERY)
    real = reference(sets, data)
    found = dict(sets.measure(real, real, prefix="r", paired=True))
    assert set(found) == {
        *("rfd_colors", "sfd_colors", "kid_colors", "mind_colors", "class_accuracy_colors", "inception_score_colors")
    }


def test_floors_are_those_of_the_samples_number_and_labels(data: Any, tmp_path: Path) -> None:
    sets = evaluator(tmp_path, "fd", "sfd", "kid")
    real = reference(sets, data, "all")

    def floor(count: int, balanced: bool = True) -> float:
        (found,) = sets.floors(real, heldout=real, num_samples=count, balanced=balanced, prefix="g")
        assert found[0] == "gfd_colors_floor"
        return found[1].value

    assert floor(20) > floor(80) > floor(10_000) > 0
    assert floor(20, balanced=False) >= floor(20)
    few = evaluator(tmp_path, "fd", kept=20)
    assert (
        dict(few.floors(reference(few, data), heldout=reference(few, data), num_samples=20, balanced=True, prefix="g"))
        == {}
    )


def test_unweighted_kernel_distances_say_so(data: Any, tmp_path: Path) -> None:
    sets = evaluator(tmp_path, "kid")
    real = reference(sets, data)
    labeled = dict(sets.measure(real, reference(sets, data, "train"), prefix="g", paired=False))
    unlabeled = dict(sets.measure(replace(real, labels=None), real, prefix="g", paired=False))
    assert (set(labeled), set(unlabeled)) == ({"kid_colors"}, {"kid_unweighted_colors"})
    assert sets.higher_is_better("g") == {"kid_colors": False, "kid_unweighted_colors": False}


@pytest.mark.parametrize("batch_size", [1, 30])
def test_no_metric_depends_on_the_batch_size_or_on_the_cache(data: Any, tmp_path: Path, batch_size: int) -> None:
    found = []
    for folder, size in (("a", batch_size), ("b", 8), ("b", 8)):
        sets = evaluator(tmp_path / folder, *EVERY)
        values = dict(
            sets.measure(reference(sets, data), reference(sets, data, "train", size), prefix="r", paired=False)
        )
        found.append({name: (estimate.value, estimate.low, estimate.high) for name, estimate in values.items()})
    for name in found[0]:
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-9, abs=1e-9)
        assert found[2][name] == found[1][name]


def test_on_the_standard_network_names_are_those_of_the_papers(tmp_path: Path) -> None:
    sets = evaluator(tmp_path, *EVERY)
    sets.extractor.standard = True
    names = {sets.name(name, "g") for name in EVERY}
    assert names == {
        "gfid",
        "sfid",
        "kid",
        "inception_score",
        "precision",
        "recall",
        "density",
        "coverage",
        "class_accuracy",
        "memorization",
        "fdr",
        "mind",
    }
    assert sets.name("fd", "r") == "rfid"


def test_features_of_real_images_are_computed_once_for_each_extractor_rule_and_choice_of_metrics(
    data: Any, tmp_path: Path
) -> None:
    def num_extracted(sets: SetEvaluator, **settings: Any) -> int:
        before = sets.extractor.num_extracted
        reference(sets, data, **settings)
        return sets.extractor.num_extracted - before

    sets = evaluator(tmp_path, "fd")
    assert num_extracted(sets) == 30
    assert num_extracted(sets, batch_size=3) == 0
    assert num_extracted(evaluator(tmp_path, "fd")) == 0
    assert num_extracted(sets, split="train") == 50
    assert num_extracted(sets, split="all") == 80
    assert num_extracted(sets, pixel_rule="truncate") == 30
    assert num_extracted(evaluator(tmp_path, "fd", "inception_score")) == 30
    assert num_extracted(evaluator(tmp_path, "fd", kept=5)) == 30
    assert num_extracted(evaluator(tmp_path, "fd", digest="b")) == 30
    data.fingerprint = "2"
    assert num_extracted(sets) == 30


def test_both_splits_are_one_set_in_order(data: Any, tmp_path: Path) -> None:
    features = reference(evaluator(tmp_path, "kid", "class_accuracy"), data, "all")
    images = torch.cat([to_uint8(split.tensors[0]) for split in (data.train, data.test)])
    assert torch.equal(features.features, Colors().extract(images).features)
    assert torch.equal(features.labels, torch.cat([torch.arange(50) % 3, torch.arange(30) % 3]))


def test_only_some_features_of_a_reference_are_stored(data: Any, tmp_path: Path) -> None:
    features = reference(evaluator(tmp_path, "fd", "kid", kept=20), data)
    assert len(features.features) == 20
    assert sum(part.count for part in features.normal.parts) == 30


def test_a_damaged_file_is_refused_with_advice(data: Any, tmp_path: Path) -> None:
    sets = evaluator(tmp_path, "fd")
    reference(sets, data)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"contains no readable features .* Remove it"):
        reference(sets, data)


def test_a_reference_in_adms_layout_has_the_gaussians_of_the_file_and_neighbors_from_its_images(
    data: Any, tmp_path: Path
) -> None:
    sets = evaluator(tmp_path / "features", *EVERY)
    sets.extractor.standard = True
    images, whole = to_uint8(data.test.tensors[0]), Colors().extract(to_uint8(data.train.tensors[0]))
    adm_npz.write(tmp_path / "reference.npz", images.split(7), 30, features=gather(whole, ("normal", "spatial")))
    features = sets.npz_features(tmp_path / "reference.npz", batch_size=8, num_processes=1)
    torch.testing.assert_close(features.normal.whole.mean, whole.features.double().mean(dim=0))
    assert torch.equal(features.features, Colors().extract(images).features)
    samples = reference(sets, data)
    found = dict(sets.measure(samples, features, prefix="g", paired=False))
    assert found["gfid"].value > 0
    assert found["gfid"].low is not None
    assert found["precision"].value == 1.0
    sets.npz_features(tmp_path / "reference.npz", batch_size=8, num_processes=1)
    assert sets.extractor.num_extracted == 60, "once"


def test_statistics_of_inception_are_refused_for_another_extractor(data: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", np.zeros((3, 2, 2, 3), np.uint8), mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ValueError, match="statistics of the standard Inception-v3, and colors is another extractor"):
        evaluator(tmp_path, "fd").npz_features(tmp_path / "reference.npz", batch_size=8, num_processes=1)


@pytest.mark.slow  # test_generate.py has it in a whole measurement
def test_two_processes_compute_the_same_reference(data: Any, tmp_path: Path) -> None:
    one, two = (
        set_to_tensors(reference(evaluator(tmp_path / str(count), *EVERY, kept=20), data, "all", num_processes=count))
        for count in (1, 2)
    )
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-9, atol=1e-12)
    assert [path.suffix for path in (tmp_path / "2").iterdir() if path.suffix != ".lock"] == [".safetensors"], (
        "nothing else remains"
    )


def test_real_images_are_measured_once_and_read_back_to_the_last_bit(tmp_path: Path, data, monkeypatch) -> None:
    sets = replace(evaluator(tmp_path, "fd", "precision"), metrics_key="a")
    real, training = reference(sets, data, "test"), reference(sets, data, "train")
    found = dict(sets.measure_real(real, training, "heldout", prefix="g"))
    assert found == dict(evaluator(tmp_path, "fd", "precision").measure_real(real, training, "heldout", prefix="g"))
    files = list(tmp_path.glob("real-*.json"))
    assert len(files) == 1
    with monkeypatch.context() as again:
        again.setattr(SetEvaluator, "measure_real_anew", lambda *_, **__: pytest.fail("measured again"))
        assert dict(sets.measure_real(real, training, "heldout", prefix="g")) == found
    others = (
        lambda: replace(sets, metrics_key="b").measure_real(real, training, "heldout", prefix="g"),
        lambda: sets.measure_real(training, real, "heldout", prefix="g"),
        lambda: sets.measure_real(real, training, "training", prefix="g"),
    )
    for count, other in enumerate(others, start=2):
        dict(other())
        assert len(list(tmp_path.glob("real-*.json"))) == count
    files[0].write_text("{")
    with pytest.raises(ValueError, match=r"real-.*Remove it"):
        dict(sets.measure_real(real, training, "heldout", prefix="g"))
