"""Job `generate`: samples depend on their seed, index and label alone, interruptions change nothing, and metrics."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.jobs.levels import CLASSES, Labelled, Levels, Pixels, evaluator, generate_job, images
from torch import Tensor, nn

import ldbench
from ldbench.core.backbone import Backbone
from ldbench.core.field import Field, Prediction
from ldbench.core.interpolants import Linear
from ldbench.core.latent import LatentSpec
from ldbench.core.pixels import to_uint8
from ldbench.jobs import generate
from ldbench.jobs.generate import Generate, sample_labels
from ldbench.metrics import adm_npz
from ldbench.metrics.feature_set import Features, gather
from ldbench.metrics.frechet import FrechetDistance
from ldbench.pipeline.generator_plan import build_generator
from ldbench.pipeline.stored_records import hashed_settings
from ldbench.sampling.guidance import ClassifierFree
from ldbench.sampling.ode import Dopri5


@pytest.fixture
def data() -> Any:
    return images()


@pytest.fixture
def job(data: Any, tmp_path: Path) -> Callable[..., Generate]:
    """Builds the job; inputs are changed by keyword."""
    return generate_job(data, evaluator(tmp_path, "fd", "class_accuracy"))


def images_of(out: Path) -> np.ndarray:
    with np.load(out / "samples.npz") as found:
        return found["arr_0"]


def test_it_measures_a_perfect_generator_as_one(job, tmp_path) -> None:
    found = job(num_samples=200).run(tmp_path)
    assert set(found) == {
        *("gfd_levels", "gfd_levels_floor", "gfd_levels_of_heldout"),
        *("class_accuracy_levels", "class_accuracy_levels_of_heldout"),
    }
    assert found["class_accuracy_levels"].value == 1
    assert found["class_accuracy_levels"].low < 1
    assert found["gfd_levels"].value < 3 * found["gfd_levels_floor"].value + 1


def test_the_distance_is_to_the_reference_split_and_beside_it_that_of_the_other_split(job, data, tmp_path) -> None:
    found = {split: job(reference=split).run(tmp_path / split) for split in ("train", "test")}
    samples = torch.from_numpy(images_of(tmp_path / "train")).float().mean(dim=(1, 2))
    for split in ("train", "test"):
        real = Levels().extract(to_uint8(getattr(data, split).tensors[0], "round")).features
        by_hand = FrechetDistance()(
            gather(Features(samples), {"normal"}), gather(Features(real), {"normal"}), paired=False
        )
        assert found[split]["gfd_levels"].value == pytest.approx(by_hand.value, rel=1e-9)
    one, other = found["train"]["gfd_levels_of_heldout"], found["test"]["gfd_levels_of_training"]
    assert one.value == pytest.approx(other.value, rel=1e-9)


def test_a_file_of_reference_images_stands_for_a_split(job, data, tmp_path) -> None:
    adm_npz.write(tmp_path / "train.npz", [to_uint8(data.train.tensors[0], "round")], len(data.train))
    found, expected = (
        job(reference=reference).run(tmp_path / name)
        for name, reference in (("a", str(tmp_path / "train.npz")), ("b", "train"))
    )
    assert found == {name: value for name, value in expected.items() if name != "gfd_levels_floor"}, (
        "the file has no labels, of which the floor of balanced samples depends"
    )


@pytest.mark.parametrize(
    "changes", [{"batch_size": 1}, {"batch_size": 30, "part_size": 30}, {"batch_size": 5, "part_size": 7}]
)
def test_neither_batches_nor_parts_change_a_sample(job, tmp_path, changes) -> None:
    found = job().run(tmp_path / "one"), job(**changes).run(tmp_path / "other")
    assert found[0] == found[1]
    assert np.array_equal(images_of(tmp_path / "one"), images_of(tmp_path / "other"))


def test_fewer_samples_of_a_seed_are_among_more_of_it(job, tmp_path) -> None:
    for labels in ("balanced", "random"):
        job(labels=labels, num_samples=9).run(tmp_path / "few")
        job(labels=labels, num_samples=30).run(tmp_path / "many")
        assert np.array_equal(images_of(tmp_path / "few"), images_of(tmp_path / "many")[:9])


def test_another_seed_draws_others(job, tmp_path) -> None:
    job().run(tmp_path / "one")
    job(sampling_seed=1).run(tmp_path / "other")
    assert not np.array_equal(images_of(tmp_path / "one"), images_of(tmp_path / "other"))


def test_an_interruption_leaves_no_trace_and_no_work_is_done_twice(job, tmp_path, monkeypatch) -> None:
    whole = job().run(tmp_path / "whole")
    interrupted_job = job()
    write, written = generate.SampleParts.write, []

    def interrupted(self: Any, indices: range, images: Tensor) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(indices)
        write(self, indices, images)

    monkeypatch.setattr(generate.SampleParts, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        interrupted_job.run(tmp_path / "cut")
    monkeypatch.undo()
    again = job()
    assert again.run(tmp_path / "cut") == whole
    assert again.generator.num_sampled == 30 - 16
    assert np.array_equal(images_of(tmp_path / "cut"), images_of(tmp_path / "whole"))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["samples.npz", "samples.png"]


class Fatal(Labelled):
    """Kills the process that draws the last samples while a file exists, once the other half is drawn."""

    def __init__(self, flag: Path, parts: Path):
        super().__init__()
        self.flag = flag
        self.parts = parts

    def sample(self, noise: Tensor, y: Tensor, sampler: Any, guidance: Any, *, stream: Any) -> Tensor:
        if self.flag.exists() and 29 in stream.indices:
            while len(list(self.parts.glob("*.npy"))) < 3:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(noise, y, sampler, guidance, stream=stream)


class Traced(Labelled):
    """Latents by a sampler along a field that turns them, faster for larger labels. Counts its samples."""

    def sample(self, noise: Tensor, y: Tensor, sampler: Any, guidance: Any, *, stream: Any) -> Tensor:
        self.num_sampled += len(y)

        def turn(x: Tensor, t: Tensor, y: Tensor) -> Prediction:
            speed = 1 + y[:, None, None] + 0.5 * noise[:, :1, :1].abs()
            return Prediction(speed * x.roll(1, dims=2), "velocity", x, t, Linear())

        field = Field(turn, interpolant=Linear(), prediction="velocity", null_class=None)
        return sampler(field, noise, y, stream=stream)


def test_the_geometry_of_paths_is_a_mean_over_samples_within_balanced_labels(job, tmp_path) -> None:
    plain, found = (
        job(generator=Traced(), path_geometry=measured).run(tmp_path / str(measured)) for measured in (False, True)
    )
    assert np.array_equal(images_of(tmp_path / "True"), images_of(tmp_path / "False"))
    paths = {name: found.pop(f"path/{name}") for name in ("straightness", "efficiency")}
    assert found == plain
    random = job(generator=Traced(), path_geometry=True, sets=None, labels="random").run(tmp_path / "random")
    for name, estimate in paths.items():
        assert 0 < estimate.low < estimate.value < estimate.high <= 1
        assert estimate.standard_error < random[f"path/{name}"].standard_error, "labels differ in speed"
    assert job(generator=Traced(), path_geometry=True, labels=[1], num_samples=4).run(tmp_path / "shown").keys() == {
        *("path/straightness", "path/efficiency")
    }


@pytest.mark.usefixtures("shares_by_forks")
def test_the_geometry_of_paths_survives_an_interruption_and_processes(job, tmp_path, monkeypatch) -> None:
    settings: dict[str, Any] = {"generator": Traced(), "path_geometry": True}
    whole = job(**settings).run(tmp_path / "whole")
    write, written = generate.SampleParts.write, []

    def interrupted(self: Any, indices: range, images: Tensor) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(indices)
        write(self, indices, images)

    with monkeypatch.context() as patch:
        patch.setattr(generate.SampleParts, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            job(**settings).run(tmp_path / "cut")
    again = Traced()
    assert job(**settings | {"generator": again}).run(tmp_path / "cut") == whole
    assert again.num_sampled == 30 - 16
    apart = job(**settings, num_processes=2, batch_size=3).run(tmp_path / "apart")
    for name in ("path/straightness", "path/efficiency"):
        assert astuple(apart[name]) == pytest.approx(astuple(whole[name]), rel=1e-6)


def test_a_guided_generator_has_the_same_samples_with_the_geometry_of_their_paths(job, tmp_path) -> None:
    torch.manual_seed(0)
    sizes = ["width=12", "depth=1", "num_heads=2"]
    cfg = ldbench.compose("train", ["generator=sit", *(f"generator.backbone.{size}" for size in sizes)])
    generator = build_generator(cfg, LatentSpec(16, 3, (4, 4)), CLASSES)
    nn.init.normal_(generator.backbone.transformer.head.linear.weight, std=0.1)
    guided = ClassifierFree(scale=2.0, low=0.0, high=1.0, channels=None, batched=True)
    settings: dict[str, Any] = {"generator": generator, "guidance": guided, "sets": None, "num_samples": 6}
    plain, found = (job(**settings, path_geometry=measured).run(tmp_path / str(measured)) for measured in (False, True))
    assert np.array_equal(images_of(tmp_path / "True"), images_of(tmp_path / "False"))
    assert plain == {}
    assert -1 <= found["path/straightness"].value <= 1
    assert 0 < found["path/efficiency"].value <= 1


def test_a_sampler_that_hides_its_steps_has_no_geometry_and_records_without_it_keep_their_ids(job) -> None:
    adaptive = Dopri5(atol=1e-6, rtol=1e-5, margin=1e-3, last_step="none", dtype="float64")
    with pytest.raises(ValueError, match="paths of Dopri5 cannot be measured"):
        job(sampler=adaptive, path_geometry=True)
    node = ldbench.compose("run", ["job=generate"]).job
    assert "path_geometry" not in hashed_settings(Generate, node)
    assert hashed_settings(Generate, {**node, "path_geometry": True})["path_geometry"] is True


@pytest.mark.usefixtures("shares_by_forks")
def test_two_processes_give_the_same_and_resume_after_one_was_killed(job, tmp_path) -> None:
    whole, flag = job().run(tmp_path / "whole"), tmp_path / "flag"
    flag.touch()
    fatal = Fatal(flag, tmp_path / "apart" / "parts")
    with pytest.raises(
        ChildProcessError,
        match=r"ended unexpectedly: process 1 terminated with signal SIGKILL\nThe same command resumes",
    ):
        job(generator=fatal, num_processes=2).run(tmp_path / "apart")
    assert len(list(fatal.parts.glob("*.npy"))) == 3
    flag.unlink()
    found = job(generator=fatal, num_processes=2).run(tmp_path / "apart")
    assert fatal.num_sampled == 30 - 24, "drawn samples are not drawn again"
    assert np.array_equal(images_of(tmp_path / "apart"), images_of(tmp_path / "whole"))
    assert found.keys() == whole.keys()
    for name, estimate in found.items():
        for value, expected in zip(astuple(estimate), astuple(whole[name]), strict=True):
            assert value == expected or value == pytest.approx(expected, rel=1e-9)
    assert not (tmp_path / "apart" / "shares").exists()


def test_the_sheet_shows_the_first_samples_of_each_class_one_class_per_row(job, tmp_path) -> None:
    job(num_samples=42, labels="balanced").run(tmp_path)
    picture = np.asarray(Image.open(tmp_path / "samples.png")).astype(float)
    side = picture.shape[0] // CLASSES
    rows = [picture[row * side : row * side + side - 2, : side - 2].mean() for row in range(CLASSES)]
    assert picture.shape[1] == 10 * side
    assert rows == sorted(rows)


def test_chosen_labels_are_shown_in_turn_and_not_compared(job, tmp_path) -> None:
    assert job(labels=[3, 1], num_samples=5, save_images=True).run(tmp_path) == {}
    found = sorted(str(path.relative_to(tmp_path / "samples")) for path in (tmp_path / "samples").rglob("*.png"))
    assert found == ["b/000001.png", "b/000003.png", "d/000000.png", "d/000002.png", "d/000004.png"]


def test_saved_samples_say_what_their_noise_is_drawn_from(job, tmp_path) -> None:
    made = job(labels=[3, 1], num_samples=5, sampling_seed=7, save_images=True)
    made.run(tmp_path)
    latent = made.generator.backbone.latent
    expected = {"seed": 7, "num_tokens": latent.num_tokens, "channels": latent.channels}
    assert json.loads((tmp_path / "noise.json").read_text()) == expected


def test_samples_without_a_class_have_the_label_behind_the_last(job, tmp_path) -> None:
    class WithNull(Labelled):
        def validate_labels(self, y: Tensor) -> None:
            assert y.max() <= CLASSES

    assert job(generator=WithNull(), labels=[CLASSES, 1], num_samples=3, save_images=True).run(tmp_path) == {}
    found = sorted(str(path.relative_to(tmp_path / "samples")) for path in (tmp_path / "samples").rglob("*.png"))
    assert found == ["0004/000000.png", "0004/000002.png", "b/000001.png"]


def test_labels_are_balanced_or_random_by_seed() -> None:
    assert sample_labels("balanced", 6, num_classes=4, seed=0).tolist() == [0, 1, 2, 3, 0, 1]
    drawn = sample_labels("random", 4000, num_classes=4, seed=0)
    assert torch.equal(drawn, sample_labels("random", 4000, num_classes=4, seed=0))
    assert not torch.equal(drawn, sample_labels("random", 4000, num_classes=4, seed=1))
    assert all(abs(int(count) - 1000) < 150 for count in drawn.bincount())


def test_labels_that_the_generator_does_not_have_are_refused_before_work(job) -> None:
    with pytest.raises(ValueError, match="labels"):
        job(labels=[4])


def test_a_generator_of_other_classes_is_not_compared(job) -> None:
    with pytest.raises(ValueError, match=r"has 1000 classes, and levels has 4: .* job\.labels=\[0,1\]"):
        job(generator=Labelled(1000))
    assert job(generator=Labelled(1000), labels=[7]).sets is None
    assert job(generator=Labelled(1000), sets=None).y[:5].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("key", ["batch_size", "part_size", "num_processes"])
def test_sizes_below_one_are_refused(key) -> None:
    with pytest.raises(ValueError, match=rf"job\.{key} must be a whole number of at least 1, got 0"):
        Generate.check(
            {
                **{"precision": "fp32", "compile": False, "path_geometry": False},
                **{"batch_size": 4, "part_size": 8, "num_processes": 1, key: 0},
            }
        )


def test_the_network_is_sampled_in_the_requested_precision_and_latents_are_decoded_in_float32(
    job, tmp_path, monkeypatch
) -> None:
    dtypes = {}
    sample, decode = Labelled.sample, Pixels.decode

    def spy(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            dtypes[kind] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Labelled, "sample", spy("sample", sample))
    monkeypatch.setattr(Pixels, "decode", spy("decode", decode))
    job(precision="bf16", sets=None).run(tmp_path)
    assert dtypes == {"sample": torch.bfloat16, "decode": torch.float32}
    with pytest.raises(ValueError, match=r"job\.precision must be one of fp32, tf32, bf16, fp16, got 'half'"):
        Generate.check({"precision": "half", "compile": False, "batch_size": 4, "part_size": 8, "num_processes": 1})


def test_a_record_in_float32_is_the_one_from_before_the_setting_existed() -> None:
    assert hashed_settings(Generate, {"precision": "fp32", "compile": False, "batch_size": 4}) == {}
    assert hashed_settings(Generate, {"precision": "bf16", "compile": False, "batch_size": 4}) == {"precision": "bf16"}
    assert hashed_settings(Generate, {"precision": "fp32", "compile": True}) == {"compile": True}
    with pytest.raises(ValueError, match=r"job\.compile must be true or false, got 'yes'"):
        Generate.check({"precision": "fp32", "compile": "yes"})


@pytest.mark.slow
def test_a_compiled_network_draws_the_same_but_for_rounding(job, tmp_path, monkeypatch) -> None:
    traced: list[int] = []

    def compile_quickly(
        self: Backbone,
    ) -> None:  # torch's own compiler takes long: tests/training/test_generator_speed.py
        self.register_forward_pre_hook(lambda *_: traced.append(torch.compiler.is_compiling()))
        nn.Module.compile(self, backend="eager")

    monkeypatch.setattr(Backbone, "compile", compile_quickly)
    torch.manual_seed(0)
    sizes = ["width=12", "depth=1", "num_heads=2"]
    cfg = ldbench.compose("train", ["generator=sit", *(f"generator.backbone.{size}" for size in sizes)])
    generator = build_generator(cfg, LatentSpec(16, 3, (4, 4)), CLASSES)
    nn.init.normal_(generator.backbone.transformer.head.linear.weight, std=0.1)
    for compile in (False, True):
        job(generator=generator, compile=compile, sets=None, num_samples=6).run(tmp_path / str(compile))
        assert bool(traced) == compile
    assert all(traced)
    plain, compiled = (images_of(tmp_path / str(compile)).astype(int) for compile in (False, True))
    assert plain.std() > 1
    assert abs(plain - compiled).max() <= 1
