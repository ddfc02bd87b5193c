"""Job `evaluate`: on our own images every number is our own, wherever they lie; labels, originals, refusals."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.jobs.levels import evaluator, generate_job, images

import ldbench
from ldbench.core.estimate import Estimate
from ldbench.jobs._sample_sets import natural, open_samples
from ldbench.jobs.evaluate import Evaluate
from ldbench.metrics import adm_npz
from ldbench.pipeline import pipeline
from ldbench.results import records, validation
from ldbench.results.leaderboards import build_leaderboards

METRICS = ("fd", "kid", "precision", "recall", "density", "coverage", "class_accuracy")
NUM = 40


@pytest.fixture
def data() -> Any:
    return images()


@pytest.fixture
def sampled(data: Any, tmp_path: Path) -> tuple[Path, dict[str, Estimate]]:
    """The output of job `generate`, and its numbers."""
    job = generate_job(data, evaluator(tmp_path, *METRICS))
    out = tmp_path / "generated"
    return out, job(num_samples=NUM, save_images=True, batch_size=8).run(out)


def evaluate(data: Any, tmp_path: Path, samples: Path, **changes: Any) -> Evaluate:
    settings = {
        **{
            "by": None,
            "originals": None,
            "metrics": None,
            "ratio_sets": {},
            "reference": "train",
            "pixel_rule": "round",
        },
        **{"batch_size": 8, "num_processes": 1, "device": torch.device("cpu")},
        "sets": evaluator(tmp_path, *METRICS),
    }
    return Evaluate(**{**settings, "samples": str(samples), "data": data, **changes})


def as_npz(out: Path, tmp_path: Path) -> Path:
    return out / "samples.npz"


def as_tar(out: Path, tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "samples.tar.gz", "w:gz") as archive:
        archive.add(out / "samples", arcname=".")
    return tmp_path / "samples.tar.gz"


def as_numbered_classes(out: Path, tmp_path: Path) -> Path:
    for label, name in enumerate("abcd"):
        shutil.copytree(out / "samples" / name, tmp_path / "numbered" / f"{label:04d}")
    return tmp_path / "numbered"


@pytest.mark.parametrize("placed", [lambda out, _: out / "samples", as_npz, as_tar, as_numbered_classes])
def test_on_the_images_of_generate_every_number_and_interval_is_that_jobs(
    data: Any, sampled: tuple[Path, dict[str, Estimate]], tmp_path: Path, placed: Callable[[Path, Path], Path]
) -> None:
    out, expected = sampled
    job = evaluate(data, tmp_path, placed(out, tmp_path))
    assert job.run(tmp_path / "evaluated") == expected
    assert job.higher_is_better == evaluator(tmp_path, *METRICS).higher_is_better("g")


@pytest.mark.parametrize("placed", [lambda out, _: out / "samples", as_npz, as_tar])
def test_samples_that_one_process_or_two_read_are_the_same(
    data: Any, sampled: tuple[Path, dict[str, Estimate]], tmp_path: Path, placed: Callable[[Path, Path], Path]
) -> None:
    out, expected = sampled
    found = evaluate(data, tmp_path, placed(out, tmp_path), num_processes=2).run(tmp_path / "evaluated")
    assert {name: found[name].value for name in found} == {
        name: pytest.approx(estimate.value, rel=1e-9) for name, estimate in expected.items()
    }


def test_without_labels_what_needs_them_is_left_out_and_said(
    data: Any, sampled: tuple[Path, dict[str, Estimate]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, expected = sampled
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (out / "samples").rglob("*.png"):
        shutil.copy(path, flat)
    with caplog.at_level("INFO"):
        found = evaluate(data, tmp_path, flat).run(tmp_path / "evaluated")
    assert "The labels of these samples are unknown: class_accuracy is left out." in caplog.text
    assert found["gfd_levels"].value == pytest.approx(expected["gfd_levels"].value, rel=1e-12)
    assert "class_accuracy_levels" not in found
    assert "kid_unweighted_levels" in found
    said = Evaluate.measured_samples({"samples": str(flat), "originals": None, "by": "them"}, data)
    assert said.protocol == {"num_samples": NUM, "labels": "unknown"}
    assert said.name == "them"


def test_equally_frequent_classes_are_balanced_and_others_random(data: Any, tmp_path: Path) -> None:
    for name, counts in (("equal", (2, 2, 2, 1)), ("unequal", (4, 2, 2, 1))):
        for folder, count in zip("abcd", counts, strict=True):
            write(tmp_path / name / folder, count)
        found = open_samples(tmp_path / name, class_names=data.class_names)
        assert found.balance == {"equal": "balanced", "unequal": "random"}[name]


def write(folder: Path, count: int, size: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.full((size, size, 3), index, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{folder.name}{index}.png")


def test_images_are_in_the_order_of_their_names_whose_numbers_count_as_numbers(data: Any, tmp_path: Path) -> None:
    assert sorted(["b/img10", "a/img9", "c/img9b"], key=natural) == ["a/img9", "c/img9b", "b/img10"]
    write(tmp_path / "x", 12)
    found = open_samples(tmp_path / "x", class_names=data.class_names)
    assert found.names == [f"x{index}" for index in range(12)]
    assert found.read(range(9, 12))[:, 0, 0, 0].tolist() == [9, 10, 11]
    assert found.labels is None


def test_the_digest_is_of_names_and_contents_and_not_of_the_place(data: Any, tmp_path: Path) -> None:
    write(tmp_path / "x", 3)
    shutil.copytree(tmp_path / "x", tmp_path / "moved")
    digests = [open_samples(tmp_path / name, class_names=data.class_names).digest for name in ("x", "moved")]
    (tmp_path / "moved" / "x2.png").rename(tmp_path / "moved" / "x3.png")
    digests.append(open_samples(tmp_path / "moved", class_names=data.class_names).digest)
    assert digests[0] == digests[1] != digests[2]


def test_an_npz_is_read_in_any_order_of_batches(data: Any, tmp_path: Path) -> None:
    pixels = torch.arange(600, dtype=torch.int64).remainder(251).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    adm_npz.write(tmp_path / "s.npz", [pixels.contiguous()], 600)
    found = open_samples(tmp_path / "s.npz", class_names=data.class_names)
    for batch in (range(0, 8), range(8, 300), range(500, 600), range(3, 5), range(0, 600)):
        assert torch.equal(found.read(batch), pixels[batch.start : batch.stop])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: None, "There is nothing at"),
        (lambda root: root.mkdir(), "There are no images in"),
        (lambda root: root.write_text("text"), "no folder, .npz or tar"),
        (lambda root: write(root, 2, size=5), "have 5 x 5 px, and those of levels 4 x 4 px"),
        (lambda root: (write(root, 2), (root / "x0.png").write_bytes(b"no")), "Cannot read .*x0.png as an image"),
    ],
)
def test_what_cannot_be_measured_is_told(data: Any, tmp_path: Path, make: Callable[[Path], Any], sentence: str) -> None:
    root = tmp_path / "x"
    make(root)
    with pytest.raises(ValueError, match=sentence):
        evaluate(data, tmp_path, root)


def test_images_of_several_sizes_are_told_by_two_names(data: Any, tmp_path: Path) -> None:
    write(tmp_path / "x", 1)
    Image.new("RGB", (6, 4)).save(tmp_path / "x" / "x9.png")
    with pytest.raises(ValueError, match=r"several sizes: x0\.png has 4 x 4 px and x9\.png 6 x 4"):
        evaluate(data, tmp_path, tmp_path / "x").run(tmp_path / "out")


def test_pairs_must_have_equal_names(data: Any, tmp_path: Path) -> None:
    write(tmp_path / "a" / "x", 3)
    write(tmp_path / "b" / "x", 4)
    with pytest.raises(ValueError, match=r"b/x has 1 images that .*a/x lacks: x3\."):
        evaluate(data, tmp_path, tmp_path / "a" / "x", originals=str(tmp_path / "b" / "x"))


@pytest.mark.trains
def test_reconstructions_beside_their_originals_are_measured_as_by_reconstruct(
    small: Callable[..., Any], already: Callable[..., Path], tmp_path: Path
) -> None:
    already()
    settings = ["protocol.extractor=digits", "protocol.distribution=[fd]", "protocol.reconstruction=[psnr,ssim,mse]"]
    pipeline.train(small(*settings, "jobs.reconstruct.save_images=true"))
    (theirs,) = [
        r for p in (tmp_path / "records").glob("reconstruct-*.json") if "rfd_digits" in (r := records.read(p)).metrics
    ]
    out = tmp_path / "records" / f"reconstruct-{theirs.id}"
    given = [f"job.samples={out / 'reconstructions'}", f"job.originals={out / 'originals'}", "job.by=vmae"]
    size = ["data=digits", "data.subset=0.1", "trainer.accelerator=cpu", f"paths.root={tmp_path}"]
    cfg = ldbench.compose("run", ["job=evaluate", *given, *size, *settings])
    pipeline.run(cfg)
    (path,) = (tmp_path / "records").glob("evaluate-*.json")
    ours = validation.read_validated(path)
    assert ours.subject == {"tokenizer": None, "generator": None, "data": "digits", "samples": "vmae"}
    for name, estimate in theirs.metrics.items():
        assert ours.metrics[name].value == pytest.approx(estimate.value, rel=1e-9)
        assert ours.metrics[name].low == pytest.approx(estimate.low, rel=1e-9)
    assert ours.protocol["num_samples"] == 360
    assert "reference" not in ours.protocol
    boards = build_leaderboards([theirs, ours])
    assert [board.subject for board in boards] == ["samples", "tokenizer"] or [board.subject for board in boards] == [
        "tokenizer",
        "samples",
    ]
    before = path.stat().st_mtime_ns
    pipeline.run(cfg)
    assert path.stat().st_mtime_ns == before, "the second command finds it"


def test_a_record_of_samples_names_them_and_no_path(tmp_path: Path) -> None:
    write(tmp_path / "0", 20, size=32)
    write(tmp_path / "elsewhere", 0)
    words = ["job=evaluate", f"job.samples={tmp_path / '0'}", "data=digits", "protocol=default"]
    pipeline.run(ldbench.compose("run", [*words, "trainer.accelerator=cpu", f"paths.root={tmp_path}"]))
    (path,) = (tmp_path / "records").glob("evaluate-*.json")
    assert str(tmp_path) not in path.read_text()
    content = json.loads(path.read_text())
    assert content["models"].keys() == content["seeds"].keys() == {"samples"}
    assert content["artifacts"]["samples"].startswith("0-")


def statistics(path: Path, width: int = 3, **more: np.ndarray) -> Path:
    np.savez(path, mu=np.full(width, 120.0), sigma=np.eye(width) * 9, **more)
    return path


def test_a_reference_of_statistics_alone_gives_the_distance(
    data: Any, sampled: tuple[Path, dict[str, Estimate]], tmp_path: Path
) -> None:
    out, _ = sampled
    reference = statistics(tmp_path / "stats.npz")
    sets = evaluator(tmp_path, "fd")
    sets.extractor.standard = True  # such files hold Inception's
    found = evaluate(data, tmp_path, out / "samples", sets=sets, reference=str(reference)).run(tmp_path / "o")
    features = sets.extractor.extract(open_samples(out / "samples", class_names=data.class_names).read(range(NUM)))
    mean, covariance = features.features.double().mean(dim=0), features.features.double().T.cov()
    root = torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt().sum() * 3
    expected = (mean - 120).square().sum() + covariance.trace() + 27 - 2 * root
    assert found["gfid"].value == pytest.approx(expected.item(), rel=1e-9)
    assert "gfid_floor" not in found


@pytest.mark.parametrize(
    ("keys", "overrides", "sentence"),
    [
        (None, ["protocol.distribution=[kid]"], r"holds normal statistics and no images, and kid needs .*Leave it out"),
        (
            None,
            ["protocol.distribution=[fd]"],
            "contains statistics of the standard Inception-v3, and digits is another",
        ),
        ({"other": np.zeros(2)}, ["protocol.distribution=[fd]"], "holds neither images"),
    ],
)
def test_what_statistics_cannot_give_is_told_before_any_work(
    tmp_path: Path, keys: dict[str, Any] | None, overrides: list[str], sentence: str
) -> None:
    path = tmp_path / "stats.npz"
    np.savez(path, **keys) if keys else statistics(path)
    write(tmp_path / "0", 20, size=32)
    words = ["job=evaluate", f"job.samples={tmp_path / '0'}", "data=digits", "protocol.extractor=digits"]
    words += [f"protocol.reference={path}", *overrides, "trainer.accelerator=cpu", f"paths.root={tmp_path}"]
    with pytest.raises(ValueError, match=sentence):
        pipeline.run(ldbench.compose("run", words))
