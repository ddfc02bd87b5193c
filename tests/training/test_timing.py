"""A clock measures each phase alone; without one, phases cost and change nothing."""

import json
from pathlib import Path

import pytest
import torch

import ldbench
from ldbench.config.components import instantiate
from ldbench.jobs._benchmark import flops
from ldbench.jobs.throughput import decode
from ldbench.pipeline import step_timing, tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.training.callbacks_step_times import StepTimes
from ldbench.training.timing import Clock, phase

WORDS = ["tokenizer=vmae", "data.subset=0.1", "trainer.accelerator=cpu", "trainer=debug"]


def test_what_a_phase_inside_another_takes_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ticks = Clock(torch.device("cpu")), iter([0.0, 1.0, 4.0, 10.0, 20.0, 25.0])
    monkeypatch.setattr(clock, "now", lambda: next(ticks))
    with clock.running():
        with phase("outer"), phase("inner"):
            pass
        with phase("inner"):
            pass
    assert clock.seconds() == {"outer": 7.0, "inner": 8.0}


def test_nothing_is_timed_where_no_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="of the test"), clock.running(), phase("one"):
        raise RuntimeError("of the test")
    with phase("two"):
        pass
    assert list(clock.seconds()) == ["one"], "also where it failed"


@pytest.mark.trains
def test_step_times_hold_every_phase_and_change_no_number(tmp_path: Path) -> None:
    weights = []
    for words in (
        [],
        ["callbacks=step_times", "callbacks.step_times.warmup=1", "callbacks.step_times.operations=true"],
    ):
        planned = plan_tokenizer(ldbench.compose("train", [*WORDS, *words, f"paths.root={tmp_path / str(len(words))}"]))
        weights.append(tokenizer_training.train_stages(planned).state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    summaries = {path.stem: json.loads(path.read_text()) for path in (planned.run_folder / "step_times").glob("*.json")}
    assert set(summaries) == {stage.name for stage in planned.stages if stage.max_steps}
    for times in summaries.values():
        phases = {"tokenizer forward", "term pixels", "tokenizer backward", "optimizers"}
        assert phases <= times.keys()
        assert 0 < sum(times[name] for name in phases) < times["seconds"]
        assert times["images"] > 0
    tokenizer = instantiate(planned.cfg.tokenizer.model, image_size=planned.cfg.tokenizer.image_size)
    forward = flops(
        tokenizer, lambda module, x: module(x), (summaries["tune"]["images"], 3, *[tokenizer.image_size] * 2)
    )
    decoder = flops(
        tokenizer, decode, (summaries["tune"]["images"], tokenizer.latent.num_tokens, tokenizer.latent.channels)
    )
    backward = summaries["tune"]["operations"] - forward
    assert 1.8 * decoder < backward < 2.1 * decoder, (
        "a trained decoder's is twice its forward pass, a frozen encoder has none"
    )


def test_a_step_of_several_batches_is_timed_as_a_whole() -> None:
    callback = StepTimes(warmup=1, operations=False, folder=Path("unused"))
    callback.rows, callback.batches, callback.accumulate = [], [], 3
    for batch in range(1, 9):  # the first batch, 0, is not timed, so that the first step is left out
        completed = batch % 3 == 2
        times = {"seconds": 1.0, "waiting": 0.1, **({"optimizers": 0.5} if completed else {})}
        callback.pending, callback.completed = (lambda times=times: times), completed
        callback.read_pending()
    assert callback.rows == [{"seconds": 3.0, "waiting": pytest.approx(0.3), "optimizers": 0.5}] * 2


@pytest.mark.trains
def test_a_trial_times_late_terms_too_and_leaves_nothing_behind(tmp_path: Path) -> None:
    words = [
        "tokenizer=vavae",
        "tokenizer.model.widths=[8,8,8,8]",
        "tokenizer.stages.train.batch_size=4",
        "data.subset=0.1",
    ]
    words += [
        "teacher@tokenizer.losses.alignment.teacher=hog4",
        "+loss@tokenizer.losses.gan=adversarial",
        "tokenizer.losses.gan.start=200",
    ]
    words += [
        "tokenizer.losses.gan.discriminator.num_layers=1",
        "tokenizer.losses.gan.discriminator.width=4",
        "trainer.accelerator=cpu",
    ]
    cfg = ldbench.compose("train", [*words, f"paths.root={tmp_path}"])
    found = step_timing.time_tokenizer_steps(cfg, 2, 3)
    assert found["train"]["images"] == 3, "of the batch that was asked for"
    assert {"term gan", "discriminator of gan", "discriminators backward"} <= found["train"].keys()
    assert cfg.tokenizer.losses.gan.start == 200
    assert not list(tmp_path.iterdir())
