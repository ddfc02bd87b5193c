"""A generator's training on latents: what it leaves behind, that it can stop and go on anywhere, and what it shows on
the way.
"""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.pipeline.generator_trainings import SMALL, latents, same

import ldbench
from ldbench.config.compose import Registry
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.pipeline import generator_training, get_generator
from ldbench.pipeline.generator_plan import (
    GeneratorPlan,
    build_generator,
    build_guidance,
    validate_cell,
    validate_parts,
)
from ldbench.results.figures import read_logs
from ldbench.sampling.guidance import Unguided
from ldbench.sampling.noise import NoiseStream
from ldbench.sampling.ode import FixedGrid
from ldbench.training.callbacks import Checkpoint

pytestmark = pytest.mark.trains

EULER = FixedGrid(rule="euler", num_steps=3, shift=1.0, margin=1e-3, last_step="tweedie", dtype="float32")
KILLS = 3


def logs_of(planned: GeneratorPlan) -> dict[str, dict[int, float]]:
    return read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))


@pytest.mark.usefixtures("trained")
def test_its_artifact_holds_the_statistics_and_samples_as_the_trained_one_does(plan_of) -> None:
    planned = plan_of()
    folder = get_generator.train_plan(planned).folder
    assert folder == planned.folder
    loaded, trained = ldbench.load(folder), generator_training.train_generator(planned)
    assert same(loaded, trained)
    assert not loaded.training
    torch.testing.assert_close(loaded.normaliser.mean.double(), latents().mean)
    stream = NoiseStream(0, range(4))
    noise, y = stream.normal(0, (4, 4, 3)), torch.arange(4)
    z = loaded.sample(noise, y, EULER, Unguided())
    assert torch.equal(z, trained.sample(noise, y, EULER, Unguided()))
    assert (z[..., 0] - 5).abs().max() < 1, "raw latents, at the tokenizer's scale"


@pytest.mark.parametrize("words", ["generator.max_steps=0", "trainer.limit_steps=0"])
def test_without_a_step_it_is_the_generator_as_it_begins(plan_of, words) -> None:
    planned = plan_of(words)
    made = ldbench.load(get_generator.train_plan(planned).folder)
    assert same(made, generator_training.init_generator(planned))
    assert planned.digest != plan_of().digest


@pytest.mark.usefixtures("trained")
def test_what_is_there_is_not_trained_again(plan_of, monkeypatch) -> None:
    planned = plan_of()
    folder = get_generator.train_plan(planned).folder
    monkeypatch.setattr(generator_training, "fit_generator", lambda *_: pytest.fail("trained again"))
    assert get_generator.train_plan(plan_of()).folder == folder
    generator_training.train_generator(planned)


@pytest.mark.usefixtures("trained")
def test_every_average_and_the_last_weights_are_kept_and_may_guide(plan_of) -> None:
    planned = plan_of()
    exported = generator_training.train_generator(planned)
    kept = {decay: generator_training.averaged(planned, decay) for decay in (0.9, 0.5, None)}
    assert same(kept[0.9], exported)
    assert not same(kept[0.5], exported)
    assert not same(kept[None], kept[0.5])
    with pytest.raises(ValueError, match=r"Kept at the end of the training: \[0\.9, 0\.5\], and None"):
        generator_training.averaged(planned, 0.1)
    weak = get_generator.train_plan(plan_of("generator.max_steps=2")).folder
    guided = plan_of("guidance=autoguidance", f"guidance.guide={weak}")
    assert guided.digest == planned.digest
    get_generator.train_plan(guided)


def test_a_guide_must_be_a_generator_of_the_same_latents(plan_of) -> None:
    weak = get_generator.train_plan(plan_of("generator.max_steps=2")).folder
    other = TensorLatents(torch.randn(9, 6, 3), torch.arange(9) % 5, latent=LatentSpec(6, 3), num_classes=5)
    cfg = ldbench.compose("train", [*SMALL, "guidance=autoguidance", f"guidance.guide={weak}"])
    validate_parts(cfg)  # it knows no latents yet
    with pytest.raises(ValueError, match="makes 4 tokens of 3 channels"):
        validate_cell(cfg, other.latent, other.num_classes)


def test_a_guide_of_another_scale_or_tokenizer_is_refused(plan_of) -> None:
    scaled = get_generator.train_plan(plan_of("generator.max_steps=2", "generator.stats=2.0")).folder
    guided = plan_of("guidance=autoguidance", f"guidance.guide={scaled}")
    with pytest.raises(ValueError, match=r"learned its latents at another scale.*same generator\.stats"):
        generator_training.train_generator(guided)
    weak = get_generator.train_plan(plan_of("generator.max_steps=2")).folder
    manifest = json.loads((weak / "manifest.json").read_text())
    (weak / "manifest.json").write_text(json.dumps({**manifest, "upstream": {"tokenizer": "a" * 64}}))
    cfg = ldbench.compose("train", [*SMALL, "guidance=autoguidance", f"guidance.guide={weak}"])
    generator = build_generator(cfg, plan_of().latents.latent, plan_of().latents.num_classes)
    with pytest.raises(ValueError, match=r"a tokenizer with the content key a{16}, and the generator those of b{16}"):
        build_guidance(cfg, generator, tokenizer_key="b" * 64)
    with pytest.raises(ValueError, match=r"a tokenizer with the content key a{16}"):  # before anything is encoded
        get_generator.plan_for(cfg, SimpleNamespace(content_key="b" * 64), None, Registry())


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_one_seed_gives_one_result_and_two_give_two(plan_of, tmp_path) -> None:
    first, again, other = (
        generator_training.train_generator(plan_of(f"seed={seed}", f"paths.root={tmp_path / place}"))
        for place, seed in ((".", 0), ("b", 0), ("c", 1))
    )
    assert same(first, again)
    assert not same(first, other)


def test_nothing_that_is_shown_changes_a_number(plan_of, tmp_path) -> None:
    plain = generator_training.train_generator(plan_of("callbacks.samples.every=0", f"paths.root={tmp_path / 'a'}"))
    shown = plan_of(
        "callbacks.samples.every=2",
        "sampler=euler_maruyama",
        "sampler.num_steps=3",
        "trainer.log_every=1",
        f"paths.root={tmp_path / 'b'}",
    )
    assert same(
        generator_training.train_generator(
            shown, decode=lambda z: z[:, :, :1].reshape(-1, 1, 2, 2).expand(-1, 3, 2, 2) / 10
        ),
        plain,
    )


def test_samples_begin_at_the_same_noise_and_are_decoded_where_there_is_a_way(plan_of) -> None:
    planned, seen = plan_of("callbacks.samples.every=4"), []

    def decode(z):
        seen.append(z)
        return torch.zeros(len(z), 3, 8, 8)

    generator_training.train_generator(planned, decode)
    assert [path.name for path in sorted(planned.run_folder.glob("images/*"))] == [
        f"{step:07d}-samples.png" for step in (4, 8, 12)
    ]
    stream = NoiseStream(0, range(6))
    noise, y = stream.normal(0, (6, 4, 3)), torch.arange(6) % 5
    sampler = FixedGrid(rule="euler", num_steps=2, shift=1.0, margin=1e-3, last_step="tweedie", dtype="float32")
    torch.testing.assert_close(
        seen[-1],
        generator_training.train_generator(planned).sample(noise, y, sampler, Unguided()),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.usefixtures("trained")
def test_without_a_decoder_the_picture_is_of_the_latents(plan_of) -> None:
    planned = plan_of()
    generator_training.train_generator(planned)
    (picture,) = planned.run_folder.glob("images/*-samples.png")
    assert len(np.unique(np.asarray(Image.open(picture)).reshape(-1, 3), axis=0)) > 10


@pytest.mark.curves
def test_its_log_tells_terms_rates_and_counters(plan_of) -> None:
    planned = plan_of("generator=lightningdit", "trainer.log_every=2")
    generator_training.train_generator(planned)
    logs = logs_of(planned)
    assert {
        f"train/{name}" for name in ("loss", "velocity", "cosine", "lr", "grad_norm", "images_seen", "batch")
    } == set(logs)
    assert set(logs["train/loss"]) == {1, 2, 4, 6, 8, 10, 12}
    assert logs["train/images_seen"][12] == 12 * 8
    assert (planned.run_folder / "learning_curves.png").is_file()


@pytest.mark.parametrize(
    ("family", "stop_at"),
    [
        ("lightningdit", 7),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("dit", 4), ("dit", 7), ("lightningdit", 4))),
    ],
)
def test_a_run_broken_off_in_the_middle_ends_in_the_weights_of_an_unbroken_one(
    plan_of, tmp_path, monkeypatch, family, stop_at
) -> None:
    options = (f"generator={family}", "sampler=dpm_solver", "generator.accumulate=2")
    unbroken = generator_training.train_generator(plan_of(*options, f"paths.root={tmp_path / 'unbroken'}"))
    planned = plan_of(*options)
    saved = Checkpoint.on_train_batch_end

    def save_and_stop(self, trainer, task, *rest):
        saved(self, trainer, task, *rest)
        if task.steps == stop_at:
            raise RuntimeError("the power is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", save_and_stop)
        with pytest.raises(RuntimeError, match="the power is gone"):
            generator_training.train_generator(planned)
    assert same(generator_training.train_generator(planned), unbroken)
    assert logs_of(planned)["train/images_seen"][12] == 12 * 2 * 8


def test_a_checkpoint_holds_plain_tensors_and_no_trace_of_compilation(plan_of) -> None:
    planned = plan_of("generator.max_steps=3")
    generator_training.train_generator(planned)
    content = torch.load(planned.run_folder / "checkpoints" / "generator.ckpt", weights_only=True)
    assert not [key for key in content["state_dict"] if "_orig_mod" in key]
    assert {key.split(".")[0] for key in content["state_dict"]} == {"generator", "averages"}


def fit_alone(planned: GeneratorPlan) -> None:
    torch.set_num_threads(1)
    generator_training.train_generator(planned)


def newest(run: Path) -> float:
    return max((path.stat().st_mtime for path in run.glob("checkpoints/*.ckpt")), default=0.0)


@pytest.mark.slow  # test_resume.py does so with a tokenizer; a run of this kind that is broken off goes on above
def test_killed_again_and_again_it_ends_in_the_same_bits(plan_of, tmp_path) -> None:
    options = ("generator.max_steps=150", "callbacks.checkpoint.every=5", "generator.accumulate=2")
    unbroken = generator_training.train_generator(plan_of(*options, f"paths.root={tmp_path / 'unbroken'}"))
    planned, kills = plan_of(*options), 0
    for _ in range(KILLS):
        before = newest(planned.run_folder)
        child = multiprocessing.get_context("fork").Process(target=fit_alone, args=(planned,))
        child.start()
        deadline = time.monotonic() + 60
        while child.is_alive() and newest(planned.run_folder) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        assert child.pid is not None
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += child.exitcode == -signal.SIGKILL
    assert kills >= 2
    assert same(generator_training.train_generator(planned), unbroken)


@pytest.mark.slow
def test_bf16_trains_to_nearly_the_same_and_checkpointing_to_the_same(plan_of, tmp_path) -> None:
    plain, half, less = (
        generator_training.train_generator(plan_of(*said, f"paths.root={tmp_path / place}"))
        for place, said in (
            ("a", ()),
            ("b", ("trainer.precision=bf16",)),
            ("c", ("generator.backbone.checkpointing=true",)),
        )
    )
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(less.state_dict()[key], value, rtol=1e-5, atol=1e-6)
        assert half.state_dict()[key].dtype == torch.float32
        assert (half.state_dict()[key] - value).abs().max() < 0.1


@pytest.mark.slow
def test_a_compiled_backbone_trains_to_the_same_up_to_rounding(plan_of, tmp_path) -> None:
    plain, compiled = (
        generator_training.train_generator(plan_of(f"trainer.compile={on}", f"paths.root={tmp_path / on}"))
        for on in ("false", "true")
    )
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, rtol=1e-2, atol=2e-3)


def test_the_process_is_left_as_it_was(plan_of) -> None:
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)  # an earlier training of this process may have left it on
    generator_training.train_generator(plan_of("generator.max_steps=1"))
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()


def test_weights_at_the_end_are_whole_files(plan_of) -> None:
    planned = plan_of("generator.max_steps=2")
    generator_training.train_generator(planned)
    files = sorted((planned.run_folder / "weights").iterdir())
    assert [file.name for file in files] == ["0.5.safetensors", "0.9.safetensors", "last.safetensors"]
    assert all(load_file(file) for file in files)


@pytest.mark.usefixtures("trained")
def test_latents_that_are_held_on_the_device_train_the_same_weights(plan_of, tmp_path: Path) -> None:
    read = generator_training.train_generator(plan_of())
    held = generator_training.train_generator(plan_of("trainer.resident=true", f"paths.root={tmp_path / 'held'}"))
    assert same(read, held)
