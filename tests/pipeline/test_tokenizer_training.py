"""Stages under the trainer: what they change, what they leave alone, and how they stop and go on."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file
from tests.pipeline.trainings import log_of, same, trained

import ldbench
from ldbench.pipeline import tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.training.callbacks import Checkpoint

pytestmark = pytest.mark.trains

Compose = Callable[..., DictConfig]


def test_a_frozen_encoder_keeps_every_bit(small: Compose, already: Callable[..., Path]) -> None:
    already()
    planned, _ = trained(small())
    before, after = (
        load_file(planned.run_folder / "stages" / f"{stage}.safetensors") for stage in ("pretrain", "tune")
    )
    encoder = [key for key in after if key.startswith("encoder.") and not key.endswith("positions")]
    assert len(encoder) > 10
    assert all(torch.equal(before[key], after[key]) for key in encoder)
    assert not torch.equal(before["decoder.to_pixels.weight"], after["decoder.to_pixels.weight"])


def test_the_official_tuning_moves_the_encoder_too(small: Compose) -> None:
    planned, _ = trained(small("tokenizer.stages.tune.encoder=trainable"))
    before, after = (
        load_file(planned.run_folder / "stages" / f"{stage}.safetensors") for stage in ("pretrain", "tune")
    )
    assert not torch.equal(
        before["encoder.transformer.blocks.0.attn.qkv.weight"], after["encoder.transformer.blocks.0.attn.qkv.weight"]
    )


def test_position_tables_move_to_the_full_resolution_by_interpolation(
    small: Compose, already: Callable[..., Path]
) -> None:
    from ldbench.layers.position import resize_table, sincos_2d

    already()
    _, weights = trained(small())
    expected = resize_table(sincos_2d((3, 3), width=16, dtype=torch.float32), (3, 3), (4, 4))
    assert torch.equal(weights["encoder.positions"], expected)
    _, fresh = trained(small("tokenizer.model.position_resize=fresh"))
    assert torch.equal(fresh["encoder.positions"], sincos_2d((4, 4), width=16, dtype=torch.float32))


def test_the_same_config_trains_the_same_weights(small: Compose, already: Callable[..., Path], tmp_path: Path) -> None:
    already()
    _, first = trained(small())
    _, second = trained(small(f"paths.root={tmp_path / 'elsewhere'}"))
    _, other = trained(small("tokenizer.seed=1"))
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("stop_at", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_broken_off_in_the_middle_ends_in_the_weights_of_an_unbroken_one(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    options = ("tokenizer.stages.pretrain.accumulate=2", "tokenizer.stages.pretrain.ema_decay=0.9")
    _, unbroken = trained(small(*options, f"paths.root={tmp_path / 'unbroken'}"))
    saved = Checkpoint.on_train_batch_end

    def save_and_stop(self: Checkpoint, trainer, task, *rest) -> None:
        saved(self, trainer, task, *rest)
        if task.stage.name == "pretrain" and task.steps == stop_at:
            raise RuntimeError("the power is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint, "on_train_batch_end", save_and_stop)
        with pytest.raises(RuntimeError, match="the power is gone"):
            trained(small(*options))
    planned, resumed = trained(small(*options))
    assert same(unbroken, resumed)
    assert len(list(planned.run_folder.glob("log/version_*"))) == 2, "the second start keeps the first one's log"
    seen = log_of(planned)["train/images_seen"]
    assert seen[6] == 6 * 2 * 8, "the counters go on"


def test_accumulating_two_half_batches_equals_one_whole_batch_up_to_rounding(small: Compose) -> None:
    # mean losses over equal halves average to that of the whole; masks and noise differ by batch, so both are off
    plain = (
        "tokenizer.stages.pretrain.mask_ratio=0",
        "tokenizer.stages.pretrain.latent=mean",
        "tokenizer.losses.kl=null",
    )
    _, whole = trained(small(*plain, "tokenizer.stages.pretrain.batch_size=16"))
    _, halves = trained(small(*plain, "tokenizer.stages.pretrain.accumulate=2"))
    key = "encoder.transformer.blocks.0.attn.qkv.weight"
    torch.testing.assert_close(whole[key], halves[key], rtol=0, atol=2e-4)


def test_an_average_of_the_weights_is_what_a_stage_leaves_behind(small: Compose, already: Callable[..., Path]) -> None:
    already()
    slow = "tokenizer.stages.pretrain.ema_decay=0.9999"
    planned, _ = trained(small(slow))
    plain, _ = trained(small())
    key = "decoder.to_pixels.weight"
    averaged, last = (load_file(p.run_folder / "stages" / "pretrain.safetensors")[key] for p in (planned, plain))
    first_step, _ = trained(
        small("tokenizer.stages.pretrain.max_steps=1", "tokenizer.stages.pretrain.optimizer.schedule=constant")
    )
    start = load_file(first_step.run_folder / "stages" / "pretrain.safetensors")[key]
    assert (averaged - start).abs().max() < 0.01 * (last - start).abs().max(), "a slow average stays where it began"


def test_gradients_are_clipped_to_the_norm_that_the_recipe_names(
    small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, closure=None):
        result = step(self, closure)
        norms.append(
            math.sqrt(
                sum(
                    p.grad.square().sum().item()
                    for group in self.param_groups
                    for p in group["params"]
                    if p.grad is not None
                )
            )
        )
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained(small("tokenizer.stages.pretrain.optimizer.clip_norm=0.01"))
    assert all(norm <= 0.01 * 1.001 for norm in norms[:6])
    assert max(norms[6:]) > 0.01, "the second stage names no norm"


def test_a_loss_that_is_not_finite_stops_with_the_batch_for_a_replay(
    small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ldbench.losses.terms import PixelMSE

    healthy = PixelMSE.forward

    def broken(self: PixelMSE, images, recon, y):
        loss = healthy(self, images, recon, y)
        return (
            loss * math.nan
            if images.requires_grad is False and recon.images.requires_grad and broken.calls == 3
            else loss
        )

    def counted(self: PixelMSE, images, recon, y):
        broken.calls += 1
        return broken(self, images, recon, y)

    broken.calls = 0
    monkeypatch.setattr(PixelMSE, "forward", counted)
    planned = plan_tokenizer(small())
    with pytest.raises(FloatingPointError, match=r"stage pretrain is not finite at batch 2 .*pixels nan") as told:
        tokenizer_training.train_stages(planned)
    path = planned.run_folder / "nonfinite-pretrain-2-0.pt"
    assert str(path) in str(told.value)
    replay = torch.load(path, weights_only=True)
    assert replay["images"].shape == (8, 3, 32, 32)
    assert replay["y"].shape == (8,)
    tokenizer = tokenizer_training.init_tokenizer(planned)
    tokenizer.load_state_dict(replay["tokenizer"])
    assert not (planned.run_folder / "stages").exists(), "a broken stage leaves nothing that the next start would trust"


def test_a_checkpoint_holds_plain_values_and_no_frozen_networks(small: Compose, tmp_path: Path) -> None:
    from ldbench.layers.lpips import LPIPSNetwork

    weights = tmp_path / "lpips.pt"
    torch.save(taming_state(LPIPSNetwork(dropout=0.0)), weights)
    lpips = ["+loss@tokenizer.losses.lpips=lpips", f"tokenizer.losses.lpips.weights.source={weights}"]
    planned, _ = trained(small(*lpips, "tokenizer.stages.pretrain.max_steps=2", "tokenizer.stages.tune.max_steps=2"))
    checkpoint = torch.load(planned.run_folder / "checkpoints" / "pretrain.ckpt", weights_only=True)
    assert any(key.startswith("tokenizer.") for key in checkpoint["state_dict"])
    assert not any(key.startswith("losses.") for key in checkpoint["state_dict"])
    assert "train/lpips" in log_of(planned)


def taming_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of the true architecture in taming-transformers' layout."""
    from ldbench.layers.lpips import CONVOLUTIONS

    own = network.state_dict()
    state = {"scaling_layer.shift": own["shift"], "scaling_layer.scale": own["scale"]}
    for stage, layers in enumerate(CONVOLUTIONS):
        state[f"lin{stage}.model.1.weight"] = own[f"heads.{stage}.weight"]
        for layer in layers:
            for kind in ("weight", "bias"):
                state[f"net.slice{stage + 1}.{layer}.{kind}"] = own[f"stages.{stage}.{layer}.{kind}"]
    return state


@pytest.mark.parametrize(
    "options", [["trainer.precision=bf16"], ["tokenizer.stages.pretrain.optimizer.schedule=constant"]]
)
def test_other_precisions_and_schedules_train(small: Compose, options: list[str]) -> None:
    planned, weights = trained(small(*options))
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in weights.values())
    assert log_of(planned)["train/loss"]


@pytest.mark.slow
def test_overfitting_one_batch_drives_the_loss_down(small: Compose) -> None:
    options = (
        "trainer=overfit",
        "trainer.limit_steps=60",
        "tokenizer.stages.pretrain.max_steps=60",
        "tokenizer.stages.pretrain.optimizer.lr=5e-3",
    )
    planned, _ = trained(
        small(*options, "trainer.accelerator=cpu", "trainer.threads=1", "tokenizer.stages.pretrain.mask_ratio=0")
    )
    loss = log_of(planned)["train/loss"]
    assert loss[60] < 0.35 * loss[1]


def test_the_debug_trainer_cuts_every_stage_short(small: Compose) -> None:
    planned = plan_tokenizer(small("trainer=debug"))
    assert [stage.max_steps for stage in planned.stages] == [3, 0, 3]
    assert planned.digest != plan_tokenizer(small()).digest


@pytest.mark.curves
def test_pictures_and_curves_are_left_behind(small: Compose) -> None:
    planned, _ = trained(small("callbacks.reconstructions.every=3"))
    pictures = sorted(path.name for path in (planned.run_folder / "images").iterdir())
    assert pictures == ["0000003-pretrain.png", "0000006-pretrain.png", "0000009-tune.png", "0000010-tune.png"]
    assert (planned.run_folder / "learning_curves.png").stat().st_size > 10_000


def test_tensorboard_gets_the_same_losses(small: Compose) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    planned, _ = trained(small("logger=tensorboard"))
    events = next(planned.run_folder.rglob("events.out.*"))
    accumulated = EventAccumulator(str(events.parent)).Reload()
    by_step = {event.step: event.value for event in accumulated.Scalars("train/loss")}
    assert by_step == pytest.approx(log_of(planned)["train/loss"], rel=1e-5)


@pytest.mark.slow
def test_compiled_training_ends_where_eager_training_does(small: Compose) -> None:
    # compiled graphs draw other numbers
    no_draws = ("tokenizer.stages.pretrain.mask_ratio=0", "tokenizer.stages.pretrain.latent=mean")
    _, eager = trained(small(*no_draws))
    _, compiled = trained(small(*no_draws, "trainer.compile=true"))
    assert eager.keys() == compiled.keys(), "no _orig_mod."
    difference = torch.cat([(eager[key] - compiled[key]).abs().flatten() for key in eager])
    assert (difference > 1e-3).double().mean() < 1e-3, "Adam moves a weight whose gradient is almost zero either way"
    assert difference.max() < 1e-2


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_in_the_same_artifact(tmp_path: Path, small_overrides: list[str]) -> None:
    longer = [*small_overrides, "tokenizer.stages.pretrain.max_steps=400", "callbacks.checkpoint.every=20"]
    command = [sys.executable, "-m", "ldbench.train", *longer]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    subprocess.run([*command, f"paths.root={unbroken}"], check=True, timeout=300, capture_output=True)
    running = subprocess.Popen([*command, f"paths.root={broken}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(broken.glob("runs/*/checkpoints/pretrain.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not list(broken.glob("artifacts/tokenizers/vmae-*")), "it was killed before its end"
    subprocess.run([*command, f"paths.root={broken}"], check=True, timeout=300, capture_output=True)
    a, b = (next((root / "artifacts" / "tokenizers").glob("vmae-*")) for root in (unbroken, broken))
    assert a.name == b.name
    assert (a / "weights.safetensors").read_bytes() == (b / "weights.safetensors").read_bytes()


def test_training_through_the_pipeline_equals_training_by_hand(small: Compose, already: Callable[..., Path]) -> None:
    folder = already()
    _, by_hand = trained(small("paths.runs=${paths.root}/other_runs"))
    assert same(by_hand, ldbench.load(folder).state_dict())


def test_without_a_step_it_is_the_tokenizer_as_it_begins(small) -> None:
    planned = plan_tokenizer(small("trainer.limit_steps=0"))
    begun, made = tokenizer_training.init_tokenizer(planned), tokenizer_training.train_tokenizer(planned)
    begun.resize(planned.stages[-1].image_size)
    expected = begun.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in made.state_dict().items())
