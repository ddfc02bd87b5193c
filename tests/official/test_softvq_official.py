"""SoftVQ-VAE's official checkpoints: sizes read off the tensors, the published names, and what is refused."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ldbench
from ldbench.config.components import instantiate
from ldbench.core.latent_stats import LatentStats
from ldbench.official.softvq import STATS, expected_keys
from ldbench.pipeline import pipeline

WIDTH, DECODER, TOKENS, CHANNELS, PATCHES, BOOKS, CODES = 64, 128, 4, 6, 16, 2, 10
BLOCK = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}


def layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def official() -> dict[str, torch.Tensor]:
    """A small official SoftVQ for 16 px: 1 + 2 blocks, one and two heads of 64, patches of 4 px."""
    shapes: dict[str, tuple[int, ...]] = {"encoder.latent_tokens": (1, TOKENS, WIDTH)}
    shapes |= {"quantize.embedding": (BOOKS, CODES, CHANNELS), "decoder.mask_token": (1, 1, DECODER)}
    shapes |= layer("encoder.model.patch_embed.proj", WIDTH, 3, 4, 4) | layer("decoder.to_pixel.model", 48, DECODER)
    shapes |= layer("quant_conv", CHANNELS, WIDTH) | layer("post_quant_conv", DECODER, CHANNELS)
    for part, width, depth in (("encoder", WIDTH, 1), ("decoder", DECODER, 2)):
        shapes |= {f"{part}.latent_pos_embed": (1, TOKENS, width), f"{part}.model.cls_token": (1, 1, width)}
        shapes |= {f"{part}.model.pos_embed": (1, 1 + PATCHES, width)} | layer(f"{part}.model.norm", width)
        for block in (f"{part}.model.blocks.{i}" for i in range(depth)):
            for name, (out, inside) in BLOCK.items():
                shapes |= layer(f"{block}.{name}", out * width, inside * width)
            shapes |= layer(f"{block}.norm1", width) | layer(f"{block}.norm2", width)
            shapes |= {f"{block}.{scale}.gamma": (width,) for scale in ("ls1", "ls2")}
    rng = torch.Generator().manual_seed(0)
    return {key: 0.2 * torch.randn(shape, generator=rng) for key, shape in shapes.items()}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_everything_is_read_off_the_tensors(images: torch.Tensor) -> None:
    state = official()
    assert expected_keys(1, 2, scaled=True) == state.keys()
    softvq = ldbench.load_official("softvq", state)
    assert (softvq.image_size, softvq.patch_size, softvq.latent.num_tokens, softvq.latent.channels) == (
        *(16, 4),
        *(TOKENS, CHANNELS),
    )
    assert softvq.latent.grid is None
    assert softvq.encoder.codebook.codes.shape == (BOOKS, CODES, CHANNELS)
    assert softvq.encoder.codebook.temperature == 0.07
    posterior = softvq.encode(images)
    assert posterior.logvar is None
    assert float(posterior.mean.detach().norm(dim=-1).max()) < 1, "mixtures of unit codes"
    assert softvq.decode(posterior.mean).shape == images.shape


def test_tensors_without_effect_and_those_of_a_training_are_left_out(images: torch.Tensor, tmp_path: Path) -> None:
    beside = {
        "quantize.codebook_used": torch.zeros(BOOKS, 65536),
        "decoder.model.patch_embed.proj.weight": torch.zeros(DECODER, 3, 4, 4),
        "decoder.model.patch_embed.proj.bias": torch.zeros(DECODER),
        "repa_model.norm.weight": torch.zeros(3),
        "projection.0.weight": torch.zeros(2, CHANNELS),
    }
    wrapped = {
        key.replace("encoder.", "encoder._orig_mod.", 1).replace("decoder.", "decoder.module.", 1): value
        for key, value in (official() | beside).items()
    }
    torch.save({"model": {}, "ema": wrapped, "optimizer": {}, "steps": 3}, tmp_path / "last.pt")
    whole, plain = (ldbench.load_official("softvq", source) for source in (tmp_path / "last.pt", official()))
    assert torch.equal(whole.encode(images).mean, plain.encode(images).mean)


def test_the_temperature_is_that_of_the_config_or_of_the_caller(images: torch.Tensor, tmp_path: Path) -> None:
    save_file(official(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"tau": 0.1, "vq_mean": -0.001, "vq_std": 0.06}))
    softvq = ldbench.load_official("softvq", tmp_path)
    assert softvq.encoder.codebook.temperature == 0.1
    assert softvq.latent_stats == LatentStats(-0.001, 0.06)
    assert ldbench.load_official("softvq", tmp_path, tau=0.2).encoder.codebook.temperature == 0.2
    with pytest.raises(ValueError, match=r"config\.json has tau 0\. Expected a number above zero"):
        ldbench.load_official("softvq", tmp_path, tau=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"quantize.embedding": None}, r"no softvq: missing quantize\.embedding"),
        ({"encoder.freqs": torch.zeros(1)}, r"no softvq: unknown encoder\.freqs"),
    ],
)
def test_another_models_tensors_are_named(changed: dict[str, torch.Tensor | None], message: str) -> None:
    state = {key: value for key, value in (official() | changed).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        ldbench.load_official("softvq", state)


def test_settings_may_not_contradict_the_tensors() -> None:
    with pytest.raises(ValueError, match="codebook_size 8192, but the tensors have 10"):
        ldbench.load_official("softvq", official(), codebook_size=8192)


@pytest.mark.parametrize(
    ("name", "millions"), [("softvq_b_64", 172.97), ("softvq_bl_64", 390.55), ("softvq_l_64", 608.14)]
)
def test_the_published_sizes_have_the_published_parameters(name: str, millions: float) -> None:
    model = ldbench.compose("train", [f"tokenizer={name}", "data=shapes"]).tokenizer
    with torch.device("meta"):
        softvq = instantiate(model.model, image_size=model.image_size)
    assert sum(value.numel() for value in softvq.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_every_published_name_has_a_yaml_a_repository_and_statistics() -> None:
    listed = ldbench.list_official()
    for name, stats in STATS.items():
        entry = listed[name]
        assert entry.hub == f"SoftVQVAE/{name.replace('_', '-')}"
        assert entry.latent_stats == stats
        cfg = ldbench.compose("train", [f"tokenizer={name}", "data=shapes"]).tokenizer
        assert cfg.name == name
        assert cfg.image_size == (512 if name.endswith("512") else 256)
        tokens = 64 if "_64" in name else 32
        assert (cfg.model.num_tokens, cfg.model.latent_channels) == (tokens, 2048 // tokens)


def test_a_file_of_another_size_than_its_name_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file(official(), tmp_path / "model.safetensors")
    words = ["tokenizer=softvq_l_32", f"tokenizer.weights={tmp_path}", "tokenizer.image_size=16", "job=reconstruct"]
    data = ["data=shapes", "data.num_train=8", "data.num_test=8", "protocol=default", "protocol.distribution=[]"]
    cfg = ldbench.compose("run", [*words, *data, f"paths.root={tmp_path}", "trainer.accelerator=cpu"])
    caplog.set_level(logging.INFO)
    folder = pipeline.run(cfg)
    assert "is of other sizes than its name says: patch_size 4 (softvq_l_32: 16), num_tokens 4 (" in caplog.text
    loaded = ldbench.load(folder)
    assert loaded.latent.num_tokens == TOKENS
    assert loaded.latent_stats == LatentStats(*STATS["softvq_l_32"])


def test_another_temperature_beside_the_same_weights_is_another_tokenizer(tmp_path: Path) -> None:
    save_file(official(), tmp_path / "model.safetensors")
    size = ldbench.load_official("softvq", tmp_path / "model.safetensors").image_size
    data = ["data=shapes", "data.num_train=8", "data.num_test=8", "protocol=default", f"tokenizer.image_size={size}"]
    words = ["job=reconstruct", "tokenizer=softvq", f"tokenizer.weights={tmp_path}", *data, "trainer.accelerator=cpu"]
    folders = set()
    for tau in (0.07, 0.1):
        (tmp_path / "config.json").write_text(json.dumps({"tau": tau}))
        folders.add(pipeline.run(ldbench.compose("run", [*words, f"paths.root={tmp_path}"])))
    assert {ldbench.load(folder).encoder.codebook.temperature for folder in folders} == {0.07, 0.1}
