"""A tokenizer's own statistics of its latents: from its files into its artifact, and into generators."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.official.test_maetok_official import CHANNELS, DECODER, TOKENS, WIDTH, official

import ldbench
from ldbench.core.latent_stats import LatentStats
from ldbench.pipeline import pipeline
from ldbench.results import records

OWN = LatentStats(-0.003, 0.07)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small released MAETok whose config.json states the statistics of its latents."""
    released = tmp_path / "released"
    released.mkdir()
    save_file(official(), released / "model.safetensors")
    (released / "config.json").write_text(json.dumps({"vq_mean": OWN.mean, "vq_std": OWN.std}))
    return released


def overrides(folder: Path, tmp_path: Path) -> list[str]:
    sizes = {"width": WIDTH, "depth": 1, "num_heads": 1, "decoder_width": DECODER, "decoder_depth": 2}
    sizes |= {"decoder_num_heads": 2, "num_tokens": TOKENS, "latent_channels": CHANNELS, "patch_size": 4}
    return [
        "tokenizer=maetok_b_128",
        f"tokenizer.weights={folder}",
        "tokenizer.image_size=16",
        *(f"tokenizer.model.{key}={value}" for key, value in sizes.items()),
        "data=shapes",
        "data.num_train=8",
        "data.num_test=8",
        "generator=sit",
        "generator.max_steps=1",
        "generator.batch_size=4",
        "~callbacks.samples",
        "protocol=default",
        "protocol.distribution=[]",
        "protocol.num_samples=4",
        "sampler.num_steps=1",
        "trainer.accelerator=cpu",
        f"paths.root={tmp_path}",
    ]


def test_they_come_with_the_model_and_are_in_no_latent(folder: Path) -> None:
    tokenizer = ldbench.load_official("maetok_b_128", folder)
    assert tokenizer.latent_stats == OWN
    without = ldbench.load_official("maetok_b_128", official())
    assert without.latent_stats is None
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(tokenizer.encode(images).mean, without.encode(images).mean)


def test_a_file_beside_the_weights_of_a_folder_states_them_too(folder: Path) -> None:
    (folder / "config.json").unlink()
    stats = {"mean": torch.full((1, CHANNELS, 1, 1), 2.0), "std": torch.full((1, CHANNELS, 1, 1), 0.5)}
    torch.save(stats, folder / "latents_stats.pt")
    found = ldbench.load_official("maetok_b_128", folder).latent_stats
    assert found == LatentStats((2.0,) * CHANNELS, (0.5,) * CHANNELS)
    alone = ldbench.load_official("maetok_b_128", folder / "model.safetensors")
    assert alone.latent_stats is None, "a file alone belongs to no folder"


def test_a_scale_that_is_published_is_one() -> None:
    from ldbench.official.load import latent_stats

    assert latent_stats("sd_vae_f8d4", {}, {}) == LatentStats.from_scale(0.18215)


@pytest.mark.trains
def test_generators_learn_measured_statistics_or_the_tokenizers(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    words = overrides(folder, tmp_path)
    measured = pipeline.train(ldbench.compose("train", words))
    assert "normalized by the measured mean and std of each channel" in caplog.text
    own = pipeline.train(ldbench.compose("train", [*words, "generator.stats=tokenizer"]))
    assert "normalized by the tokenizer's own statistics: mean -0.003, std 0.07." in caplog.text
    given = pipeline.train(ldbench.compose("train", [*words, "generator.stats=[-0.003,0.07]"]))
    assert len({measured, own, given}) == 3, "which statistics were used is in the digest"
    for path in (own, given):
        normalizer = ldbench.load(path).normaliser
        torch.testing.assert_close(normalizer.mean, torch.full((CHANNELS,), -0.003))
        torch.testing.assert_close(normalizer.std, torch.full((CHANNELS,), 0.07))
    assert len(set(ldbench.load(measured).normaliser.std.tolist())) == CHANNELS
    (tokenizer,) = (tmp_path / "artifacts" / "tokenizers").glob("maetok*")
    assert json.loads((tokenizer / "config.json").read_text())["latent_stats"] == OWN.to_dict()
    assert ldbench.load(tokenizer).latent_stats == OWN
    found = [records.read(path) for path in (tmp_path / "records").glob("generate-*.json")]
    assert {str(record.config["generator"]["stats"]) for record in found} == {"None", "tokenizer", "[-0.003, 0.07]"}
    opened = [*words[6:], "tokenizer=artifact", f"tokenizer.path={tokenizer}", "generator.stats=tokenizer"]
    again = pipeline.train(ldbench.compose("train", [word for word in opened if "tokenizer.model" not in word]))
    assert again == own, "they travel in the artifact"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generator.stats=tokenizer", "a tokenizer that is trained here has none: leave it out, and they are measured"),
        ("generator.stats=[0.1]", r"Statistics of latents are \[mean, std\], got 1 values"),
        ("generator.stats=[0,-1]", "std, which must be above zero, got -1"),
        ("generator.stats=[[0,0],[1,1]]", "The mean is of 2 channels, but these latents have 4"),
        ("generator.stats=[abc,1]", "mean of latents must be a finite number, or one for each channel, got 'abc'"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(override: str, message: str, tmp_path: Path) -> None:
    words = [
        "tokenizer=maetok",
        "tokenizer.model.latent_channels=4",
        "generator=sit",
        override,
        f"paths.root={tmp_path}",
    ]
    with pytest.raises(ValueError, match=rf"generator\.stats=.*{message}"):
        pipeline.train(ldbench.compose("train", [*words, f"paths.root={tmp_path}"]))
    assert not (tmp_path / "artifacts").exists()


def test_an_artifact_with_statistics_of_other_channels_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"latents_mean": [0.0, 0.0], "latents_std": [1.0, 1.0]}))
    with pytest.raises(ValueError, match=rf"The mean is of 2 channels, but these latents have {CHANNELS}"):
        ldbench.load_official("maetok_b_128", folder)
