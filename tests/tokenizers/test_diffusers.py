"""Every autoencoder of diffusers that we take: bit for bit what the class itself gives, from a folder that it saved."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tokenizers.diffusers_models import MODELS, saved
from torch import Tensor

import ldbench
from ldbench.core.latent_stats import LatentStats
from ldbench.official.diffusers import PUBLISHED, latent_stats, published_class
from ldbench.pipeline import pipeline
from ldbench.tokenizers.diffusers import CLASSES

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def theirs(model: Any, images: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Mean, log-variance and reconstruction of the mean by direct calls of the class."""
    name = type(model).__name__
    x = (images + 1) / 2 if name == "AutoencoderRAE" else images
    found = model.encode(x[:, :, None] if name.endswith("QwenImage") else x)
    logvar = None
    if hasattr(found, "latent_dist"):
        z, logvar = found.latent_dist.mode(), found.latent_dist.logvar
    else:
        z = found.latents if hasattr(found, "latents") else found.latent
    decoded = model.decode(z.contiguous()).sample  # rounding depends on the layout in memory
    if name.endswith("QwenImage"):
        z, logvar, decoded = z[:, :, 0], logvar[:, :, 0], decoded[:, :, 0]
    return z, logvar, decoded * 2 - 1 if name == "AutoencoderRAE" else decoded


def tokens(z: Tensor, name: str) -> Tensor:
    """(B, N, C) by hand: FLUX.2's are patches of 2 x 2 positions, channels first."""
    if name == "AutoencoderKLFlux2":
        b, c, h, w = z.shape
        z = z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, c * 4, h // 2, w // 2)
    return z.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("class_name", MODELS)
def test_it_gives_what_the_class_gives_bit_for_bit(class_name: str, tmp_path: Path) -> None:
    model = saved(class_name, tmp_path)
    tokenizer = ldbench.load_official("diffusers", tmp_path)
    if class_name != "AutoencoderRAE":
        tokenizer.resize(32)
    with torch.no_grad():
        z, logvar, decoded = theirs(model, IMAGES)
        posterior = tokenizer.encode(IMAGES)
        assert torch.equal(posterior.mean, tokens(z, class_name))
        if logvar is None:
            assert posterior.logvar is None
        else:
            assert posterior.logvar is not None
            assert torch.equal(posterior.logvar, tokens(logvar, class_name))
        assert torch.equal(tokenizer.decode(posterior.mean), decoded)
    spec = tokenizer.latent
    assert posterior.mean.shape[1:] == (spec.num_tokens, spec.channels)
    assert spec.grid is not None


@pytest.mark.parametrize("class_name", [name for name in MODELS if CLASSES[name].any_size])
def test_the_latent_of_another_size_is_the_real_one(class_name: str, tmp_path: Path) -> None:
    saved(class_name, tmp_path)
    tokenizer = ldbench.load_official("diffusers", tmp_path)
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        z = tokenizer.encode(images).mean
        grid = (16 // tokenizer.factor, 24 // tokenizer.factor)
        assert z.shape == (1, grid[0] * grid[1], tokenizer.latent.channels)
        assert tokenizer.decode(z, grid).shape == images.shape
    with pytest.raises(
        ValueError, match=rf"image_size 33 is not a multiple of {tokenizer.factor}, by which this {class_name}"
    ):
        tokenizer.resize(33)


def stats_of(class_name: str, **settings: Any) -> LatentStats | None:
    return latent_stats({"_class_name": class_name, **settings}, None)


@pytest.mark.parametrize(
    ("class_name", "settings", "expected"),
    [
        ("AutoencoderKL", {"scaling_factor": 0.13025}, LatentStats.from_scale(0.13025)),
        ("AutoencoderKL", {}, LatentStats.from_scale(0.18215)),  # a default of the class
        ("AutoencoderKL", {"shift_factor": 0.1159, "scaling_factor": 0.3611}, LatentStats(0.1159, 1 / 0.3611)),
        (
            "AutoencoderKL",  # its registered default beside them says nothing
            {"latents_mean": [0.5, 0.0], "latents_std": [2.0, 1.0], "scaling_factor": 0.18215, "shift_factor": None},
            LatentStats((0.5, 0.0), (2.0, 1.0)),
        ),
        (
            "AutoencoderKL",
            {"latents_mean": [0.5], "latents_std": [2.0], "scaling_factor": 0.3, "normalization": "mean_std"},
            LatentStats((0.5,), (2.0,)),
        ),
        (
            "AutoencoderKL",
            {"latents_mean": [0.5], "latents_std": [2.0], "scaling_factor": 0.3, "normalization": "scale"},
            LatentStats.from_scale(0.3),
        ),
        ("AutoencoderDC", {"scaling_factor": 0.41407}, LatentStats.from_scale(0.41407)),
        ("AutoencoderTiny", {"scaling_factor": 1.0, "shift_factor": 0.0}, LatentStats(0.0, 1.0)),
        ("AutoencoderKLQwenImage", {"latents_mean": [1.0], "latents_std": [3.0]}, LatentStats((1.0,), (3.0,))),
        ("AutoencoderKLHunyuanImage", {"scaling_factor": 0.75}, LatentStats.from_scale(0.75)),
        ("AutoencoderKLHunyuanImage", {"scaling_factor": None}, None),
        ("AutoencoderRAE", {"latents_mean": [1.0], "latents_std": [2.0]}, LatentStats(0.0, 1.0)),  # inside the class
    ],
)
def test_the_scale_of_latents_is_the_classs_own(
    class_name: str, settings: dict[str, Any], expected: LatentStats | None
) -> None:
    assert stats_of(class_name, **settings) == expected


def test_qwens_default_is_reported_as_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = stats_of("AutoencoderKLQwenImage")
    assert found is not None
    assert isinstance(found.mean, tuple)
    assert found.mean[0] == -0.7571
    assert "The scale of latents is the default of AutoencoderKLQwenImage" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latents_mean": [0.5]}, "latents_mean without latents_std"),
        (
            {"latents_mean": [0.5], "latents_std": [2.0], "scaling_factor": 0.3},
            "twice, by latents_mean, latents_std, scal",
        ),
        ({"latents_mean": [0.5], "latents_std": [2.0], "shift_factor": 0.1}, "twice, by .*shift_factor"),
        ({"normalization": "both"}, "tokenizer.normalization must be one of mean_std, scale or null"),
    ],
)
def test_a_scale_that_cannot_be_known_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stats_of("AutoencoderKL", **settings)


def test_flux2_has_the_statistics_of_its_batch_norm(tmp_path: Path) -> None:
    model = saved("AutoencoderKLFlux2", tmp_path)
    stats = ldbench.load_official("diffusers", tmp_path).latent_stats
    std = (model.bn.running_var.double() + 1e-4).sqrt()
    assert stats == LatentStats(tuple(model.bn.running_mean.double().tolist()), tuple(std.tolist()))
    z = torch.randn(1, 5, 16)
    expected = (z - model.bn.running_mean) / torch.sqrt(model.bn.running_var + 1e-4)
    torch.testing.assert_close(stats.normalizer(16).normalize(z), expected)


def test_what_is_no_autoencoder_of_ours_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("AutoencoderTiny", tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(
        ValueError, match=r"config\.json is of a UNet2DConditionModel, and tokenizer=diffusers takes Auto"
    ):
        ldbench.load_official("diffusers", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings | {"latent_channels": 7}))
    with pytest.raises(ValueError, match=r"do not fit DiffusersAutoencoder: .* of another shape"):
        ldbench.load_official("diffusers", tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json with a `_class_name` beside these weights"):
        ldbench.load_official("diffusers", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"the extra for it is missing: pip install 'ldbench\[diffusers\]'"):
        ldbench.load_official("diffusers", tmp_path)


def test_every_published_one_is_a_word_with_source_license_and_revision() -> None:
    for name, (hub, licence, _) in PUBLISHED.items():
        cfg = ldbench.compose("run", [f"tokenizer={name}", "data=shapes", "job=encode"]).tokenizer
        assert cfg.name == name
        assert cfg.weights == f"hf://{hub}"
        assert ldbench.list_official()[name].licence == licence


def test_a_published_name_takes_no_file_of_another_class(tmp_path: Path) -> None:
    saved("AutoencoderTiny", tmp_path)
    sentence = r"config\.json is of the class AutoencoderTiny, and flux_vae is of AutoencoderKL\. .*tokenizer=diffusers"
    with pytest.raises(ValueError, match=sentence):
        ldbench.load_official("flux_vae", tmp_path)
    assert {published_class(name) for name in PUBLISHED} == set(CLASSES)


def command(folder: Path, tmp_path: Path, *overrides: str) -> list[str]:
    data = ["data=shapes", "data.num_train=8", "data.num_test=8", "protocol=default", "protocol.distribution=[]"]
    words = ["tokenizer=diffusers", f"tokenizer.weights={folder}", "tokenizer.image_size=32", *data, *overrides]
    return [*words, "trainer.accelerator=cpu", f"paths.root={tmp_path}"]


@pytest.mark.parametrize("class_name", MODELS)
def test_each_class_becomes_an_artifact_and_is_measured(class_name: str, tmp_path: Path) -> None:
    saved(class_name, tmp_path / "theirs")
    folder = pipeline.run(ldbench.compose("run", command(tmp_path / "theirs", tmp_path, "job=reconstruct")))
    loaded = ldbench.load(folder)
    assert loaded.latent_stats == ldbench.load_official("diffusers", tmp_path / "theirs").latent_stats
    assert pipeline.run(ldbench.compose("run", command(tmp_path / "theirs", tmp_path, "job=encode"))) == folder


def test_an_image_size_that_the_factor_does_not_divide_is_refused_before_work(tmp_path: Path) -> None:
    saved("AutoencoderKL", tmp_path / "theirs")
    words = command(tmp_path / "theirs", tmp_path, "job=reconstruct", "tokenizer.image_size=33")
    with pytest.raises(ValueError, match=r"image_size 33 is not a multiple of 2"):
        pipeline.run(ldbench.compose("run", words))
    assert not list((tmp_path / "artifacts").rglob("manifest.json"))


def test_a_missing_path_is_asked_for(tmp_path: Path) -> None:
    cfg = ldbench.compose("run", ["tokenizer=diffusers", "data=shapes", "job=encode", f"paths.root={tmp_path}"])
    with pytest.raises(
        ValueError, match=r"These need a value: tokenizer\.weights\. .* give a file, a folder, or hf://"
    ):
        pipeline.run(cfg)


def test_half_precision_is_refused_where_the_class_asks_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "validate_precision", lambda *_, **__: None)  # which refuses it without CUDA
    saved("AutoencoderKL", tmp_path / "theirs")
    words = command(tmp_path / "theirs", tmp_path, "job=encode", "job.precision=fp16")
    with pytest.raises(ValueError, match=r"job\.precision=fp16 overflows in diffusers-\w+: .* Set job\.precision=bf16"):
        pipeline.run(ldbench.compose("run", words))


@pytest.mark.trains
def test_a_generator_is_trained_on_its_latents_by_the_tokenizers_own_scale(tmp_path: Path) -> None:
    saved("AutoencoderKLFlux2", tmp_path / "theirs")
    small = ["generator=sit", "generator.max_steps=1", "generator.batch_size=4", "generator.stats=tokenizer"]
    short = ["protocol.num_samples=4", "sampler.num_steps=1", "~callbacks.samples"]
    words = [word for word in command(tmp_path / "theirs", tmp_path) if not word.startswith("job")]
    folder = pipeline.train(ldbench.compose("train", [*words, *small, *short]))
    stats = ldbench.load_official("diffusers", tmp_path / "theirs").latent_stats
    assert stats is not None
    torch.testing.assert_close(ldbench.load(folder).normaliser.mean, torch.tensor(stats.mean))


def test_an_encoder_that_is_frozen_is_timed_and_stays_frozen(tmp_path: Path) -> None:
    saved("AutoencoderRAE", tmp_path / "theirs")
    pipeline.run(ldbench.compose("run", command(tmp_path / "theirs", tmp_path, "job=throughput", "job.repeats=2")))
    assert len(list((tmp_path / "records").glob("throughput-*.json"))) == 1
