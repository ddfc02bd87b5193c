"""Loss terms that learn, under the trainer: auxiliary decoders and opponents attach to any tokenizer, and go on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from safetensors.torch import load_file
from tests.pipeline.trainings import log_of, same, trained

import ldbench
from ldbench.pipeline import pipeline, tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.training.callbacks import Checkpoint

pytestmark = pytest.mark.trains

Compose = Callable[..., DictConfig]

TAUGHT = (  # a tokenizer that drops what is hidden, with every kind of teacher and an opponent
    "+loss@tokenizer.losses.hog=hog",
    "tokenizer.losses.hog.width=12",
    "+loss@tokenizer.losses.digits=digits",
    "tokenizer.losses.digits.width=12",
    "tokenizer.losses.digits.teacher.network.max_steps=2",
    "tokenizer.losses.digits.teacher.network.batch_size=16",
    "callbacks.auxiliaries.num_images=32",
    "+loss@tokenizer.losses.classes=classes",
    "tokenizer.losses.classes.width=12",
    "+loss@tokenizer.losses.gan=adversarial",
    "tokenizer.losses.gan.discriminator.num_layers=1",
    "tokenizer.losses.gan.discriminator.width=4",
    "tokenizer.losses.gan.start=2",
    "tokenizer.losses.gan.lecam_weight=0.001",
    "tokenizer.losses.gan.augment_probability=0.5",
    "tokenizer.losses.gan.consistency_weight=1.0",
)


@pytest.mark.slow
def test_auxiliary_decoders_and_an_opponent_attach_to_any_tokenizer_and_vanish_at_export(
    small: Compose, already: Callable[..., Path]
) -> None:
    plain = already()
    cfg = small(*TAUGHT)
    folder = pipeline.train(cfg)
    assert load_file(folder / "weights.safetensors").keys() == load_file(plain / "weights.safetensors").keys()
    logged = log_of(plan_tokenizer(cfg))
    assert {
        f"train/{name}" for name in ("hog", "digits", "classes", "gan", "gan_balance", "gan_discriminator")
    } <= logged.keys()
    assert min(logged["train/gan"]) > 2, "nothing of it before its start"
    assert {f"heldout/{name}_explained" for name in ("hog", "digits", "classes")} <= logged.keys()
    learned = load_file(plan_tokenizer(cfg).run_folder / "stages" / "pretrain.losses.safetensors")
    assert {"hog", "digits", "classes", "gan"} == {key.partition(".")[0] for key in learned}
    assert not any("teacher" in key for key in learned)


def test_each_auxiliary_term_can_be_switched_off_from_the_command_line(tmp_path: Path) -> None:
    plain, without, more = (
        plan_tokenizer(ldbench.compose("train", ["tokenizer=maetok", *said]))
        for said in ((), ("~tokenizer.losses.hog",), ("+loss@tokenizer.losses.digits=digits",))
    )
    assert len({plain.digest, without.digest, more.digest}) == 3
    assert "hog" not in without.cfg.tokenizer.losses
    assert more.recipe["stages"][0]["losses"]["digits"]["teacher"]["network"], (
        "the digest covers the network that teaches"
    )


@pytest.mark.slow
def test_a_taught_and_opposed_training_broken_off_ends_in_the_weights_of_an_unbroken_one(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(small(*TAUGHT, "tokenizer.stages.pretrain.max_steps=8", f"paths.root={tmp_path / 'unbroken'}"))
    cfg = small(*TAUGHT, "tokenizer.stages.pretrain.max_steps=8", f"paths.root={tmp_path / 'broken'}")
    keep = Checkpoint.on_train_batch_end

    def break_off(self, trainer, task, *args):
        keep(self, trainer, task, *args)
        if task.steps == 5 and task.stage.name == "pretrain":
            raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", break_off)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            tokenizer_training.train_stages(plan_tokenizer(cfg))
    planned, weights = trained(cfg)
    assert same(weights, expected[1])
    kept, unbroken = (
        load_file(each.run_folder / "stages" / "tune.losses.safetensors") for each in (planned, expected[0])
    )
    assert same(kept, unbroken)
    assert kept["gan.average_real"] != 0


@pytest.mark.slow
def test_a_balanced_opponent_trains_compiled_under_a_frozen_encoder_too(small: Compose) -> None:
    planned, _ = trained(
        small(*TAUGHT, "tokenizer.losses.gan.start=0", "trainer.compile=true", "trainer.limit_steps=2")
    )
    assert max(log_of(planned)["train/gan_balance"].values()) > 0


@pytest.mark.slow
def test_two_processes_train_an_opponent_and_hold_the_same_averages(tmp_path: Path, small_overrides: list[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "ldbench.train",
        *small_overrides,
        *TAUGHT,
        "tokenizer.losses.gan.start=0",
        f"paths.root={tmp_path}",
    ]
    done = subprocess.run([*command, "trainer=ddp"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    (kept,) = tmp_path.glob("runs/*/stages/tune.losses.safetensors")
    assert load_file(kept)["gan.average_real"] != 0
