"""`init=`: artifacts, and released weights of the configured model; what does not fit may be left out."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tests.official.test_vavae_official import official

import ldbench
from ldbench.pipeline import pipeline
from ldbench.pipeline.init_weights import resolve_init
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.pipeline.tokenizer_training import init_tokenizer

Compose = Callable[..., DictConfig]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A small released VA-VAE."""
    torch.save({"state_dict": official()}, tmp_path / "vae.pt")
    return tmp_path / "vae.pt"


def training(released: Path, tmp_path: Path, *overrides: str) -> DictConfig:
    words = ["tokenizer=vavae", "tokenizer.name=vavae_f16d16", f"init={released}", f"paths.root={tmp_path}"]
    sizes = {"widths": "[32,64]", "depth": 1, "attention": "[1]", "latent_channels": 4}
    model = [f"tokenizer.model.{key}={value}" for key, value in sizes.items()]
    return ldbench.compose("train", [*words, *model, "trainer.accelerator=cpu", *overrides])


def test_a_training_begins_with_released_weights(released: Path, tmp_path: Path) -> None:
    planned = plan_tokenizer(training(released, tmp_path))
    theirs = ldbench.load_official("vavae_f16d16", released).state_dict()
    ours = init_tokenizer(planned).state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    moved = released.rename(tmp_path / "elsewhere.pt")
    assert plan_tokenizer(training(moved, tmp_path)).digest == planned.digest, "their content counts"
    torch.save({"state_dict": {key: value + 1 for key, value in official().items()}}, moved)
    assert plan_tokenizer(training(moved, tmp_path)).digest != planned.digest


def test_what_does_not_fit_is_refused_or_on_request_left_out_and_listed(
    released: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wider = "tokenizer.model.latent_channels=6"
    with pytest.raises(ValueError, match=r"init=.*vae\.pt: .* of another shape .* init_partial=true takes those"):
        init_tokenizer(plan_tokenizer(training(released, tmp_path, wider)))
    caplog.set_level(logging.INFO)
    planned = plan_tokenizer(training(released, tmp_path, wider, "init_partial=true"))
    assert planned.recipe["init_partial"] is True
    ours, theirs = init_tokenizer(planned), ldbench.load_official("vavae_f16d16", released)
    anew = init_tokenizer(plan_tokenizer(training(released, tmp_path, wider, "init=null"))).state_dict()
    for key, value in ours.state_dict().items():
        given = theirs.state_dict()[key]
        assert torch.equal(value, given if given.shape == value.shape else anew[key])
    assert "Left out: encoder.conv.conv_out.weight (8, 64, 3, 3), " in caplog.text
    assert "Initialized as without: encoder.conv.conv_out.weight (12, 64, 3, 3), " in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tokenizer.name=mine"], r"is no artifact: it has no manifest\.json\. .* official name, as in tokenizer="),
        (["generator=sit_xl_2"], "both vavae_f16d16 and sit_xl_2 are trained. Train the tokenizer first"),
        (["init=null", "init_partial=true"], r"init_partial=true has no effect without init="),
        (["init=nowhere.pt"], r"init=nowhere\.pt: There is no file"),
    ],
)
def test_what_cannot_be_begun_with_is_refused_before_any_work(
    released: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.train(training(released, tmp_path, *overrides))
    assert not (tmp_path / "artifacts").exists()


def test_weights_of_which_nothing_fits_are_refused(released: Path, tmp_path: Path) -> None:
    cfg = training(released, tmp_path, "init_partial=true")
    start = resolve_init(cfg, "tokenizer")
    assert start is not None
    with pytest.raises(ValueError, match=r"none of its 1 tensors fits"):
        start.fitting(torch.nn.Linear(2, 2), {"other": torch.zeros(1)})


@pytest.mark.trains
def test_a_generator_of_another_size_is_refused_before_its_tokenizer_is_trained(
    small: Compose, already: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["generator=sit", "generator.max_steps=1", "protocol.num_samples=4", "sampler.num_steps=1"]
    folder = pipeline.train(small(*words, "protocol.distribution=[]", "~callbacks.samples"))
    other = small(*words, "tokenizer.seed=5", "generator.backbone.width=48", f"init={folder}")
    with pytest.raises(ValueError, match=r"init=.*: These weights do not fit DiT: .* init_partial=true takes"):
        pipeline.train(other)
    assert len(list((tmp_path / "artifacts" / "tokenizers").glob("vmae-*"))) == 1
