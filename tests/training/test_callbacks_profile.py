"""A profile names the phases of a step and counts them, and changes no number."""

import json
import logging
from pathlib import Path

import pytest
import torch

import ldbench
from ldbench.pipeline import tokenizer_training
from ldbench.pipeline.tokenizer_plan import plan_tokenizer

WORDS = [
    "tokenizer=vavae",
    "tokenizer.model.widths=[8,8,8,8]",
    "tokenizer.stages.train.batch_size=4",
    "data.subset=0.1",
    "trainer.accelerator=cpu",
]
WORDS += [
    "teacher@tokenizer.losses.alignment.teacher=hog4",
    "+loss@tokenizer.losses.gan=adversarial",
    "tokenizer.losses.gan.start=2",
]
WORDS += [
    "tokenizer.losses.gan.discriminator.num_layers=1",
    "tokenizer.losses.gan.discriminator.width=4",
    "trainer=debug",
]


def profiled(tmp_path: Path, *overrides: str) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    """How often each named thing was done in the profiled batch, and the weights after all."""
    planned = plan_tokenizer(ldbench.compose("train", [*WORDS, *overrides, f"paths.root={tmp_path}"]))
    weights = tokenizer_training.train_stages(planned).state_dict()
    trace = planned.run_folder / "profile" / "train.json"
    if not trace.is_file():
        return {}, weights
    events = [
        event["name"] for event in json.loads(trace.read_text())["traceEvents"] if event.get("cat") == "user_annotation"
    ]
    return {name: events.count(name) for name in events}, weights


@pytest.mark.slow
def test_no_term_is_computed_twice_and_none_before_its_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before, weights = profiled(tmp_path / "before", "callbacks=profile", "callbacks.profile.batch=1")
    assert not [name for name in before if "gan" in name or "discriminator" in name]
    assert {
        "term pixels": 1,
        "term kl": 1,
        "term alignment": 1,
        "tokenizer forward": 1,
        "tokenizer backward": 1,
    }.items() <= before.items()
    assert before["gradient of pixels by the image"] == before["reconstruction at the anchor of alignment"] == 1
    assert "term alignment" in caplog.text
    after, _ = profiled(tmp_path / "after", "callbacks=profile", "callbacks.profile.batch=2")
    assert {
        "term gan": 1,
        "discriminator of gan": 1,
        "discriminators backward": 1,
        "gradient of gan by the image": 1,
    }.items() <= after.items()
    assert all(
        count == 1
        for name, count in after.items()
        if name.startswith(("term ", "gradient of ", "tokenizer ", "reconstruction at "))
    )
    none, plain = profiled(tmp_path / "plain")
    assert not none
    assert all(torch.equal(value, plain[key]) for key, value in weights.items())
