"""MAETok's official checkpoints: every layout they come in, and what is wrong with those that are refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

import ldbench

WIDTH, DECODER, TOKENS, CHANNELS, PATCHES = 64, 128, 3, 4, 16
BLOCK = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def official(*, rope=True, rows=CHANNELS, class_token=False) -> dict[str, torch.Tensor]:
    """A small official MAETok for 16 px: 1 + 2 blocks, one and two heads of 64, patches of 4 px."""
    shapes = {"encoder.latent_tokens": (1, TOKENS, WIDTH), "encoder.latent_pos_embed": (1, TOKENS, WIDTH)}
    shapes |= {"encoder.model.cls_token": (1, 1, WIDTH), "encoder.model.pos_embed": (1, 1 + PATCHES, WIDTH)}
    shapes |= layer("encoder.model.patch_embed.proj", WIDTH, 3, 4, 4) | layer("encoder.model.norm", WIDTH)
    shapes |= layer("quant_conv", rows, WIDTH) | layer("post_quant_conv", DECODER, CHANNELS)
    shapes |= {"decoder.mask_token": (1, 1, DECODER), "decoder.latent_pos_embed": (1, TOKENS, DECODER)}
    shapes |= {"decoder.model.pos_embed": (1, 1 + PATCHES, DECODER)} | layer(
        "decoder.model.patch_embed.proj", DECODER, 3, 4, 4
    )
    shapes |= layer("decoder.model.norm.adaLN_modulation.1", 2 * DECODER, CHANNELS) | layer(
        "decoder.to_pixel.model", 48, DECODER
    )
    for part, width, depth in (("encoder", WIDTH, 1), ("decoder", DECODER, 2)):
        for i in range(depth):
            block = f"{part}.model.blocks.{i}"
            for name, (out, inside) in BLOCK.items():
                shapes |= layer(f"{block}.{name}", out * width, inside * width)
            if part == "encoder":
                shapes |= layer(f"{block}.norm1", width) | layer(f"{block}.norm2", width)
                shapes |= {f"{block}.ls1.gamma": (width,), f"{block}.ls2.gamma": (width,)}
            else:
                shapes |= layer(f"{block}.adaLN_modulation.1", 4 * width, CHANNELS)
        if rope:
            shapes |= {
                f"{part}.freqs": (2, depth, width // 2),
                f"{part}.freqs_t_x": (PATCHES,),
                f"{part}.freqs_t_y": (PATCHES,),
            }
    if class_token or not rope:
        shapes["decoder.model.cls_token"] = (1, 1, DECODER)
    rng = torch.Generator().manual_seed(0)
    return {key: 0.2 * torch.randn(shape, generator=rng) for key, shape in shapes.items()}


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_everything_is_read_off_the_tensors(images):
    maetok = ldbench.load_official("maetok_b_128", official())
    assert (maetok.image_size, maetok.patch_size, maetok.latent.num_tokens, maetok.latent.channels) == (
        16,
        4,
        TOKENS,
        CHANNELS,
    )
    assert len(maetok.encoder.transformer.blocks) == 1
    assert len(maetok.decoder.query.blocks) == 2
    assert maetok.encoder.rotary is not None
    assert maetok.decoder.query.class_token is None
    assert maetok.encode(images).logvar is None
    assert maetok.decode(maetok.encode(images).mean).shape == images.shape
    assert not maetok.training


def test_variants_are_inferred_from_the_tensors(images):
    absolute = ldbench.load_official("maetok_b_128", official(rope=False))
    assert absolute.encoder.rotary is None
    assert absolute.decoder.query.class_token is not None
    assert ldbench.load_official("maetok_b_128", official(class_token=True)).decoder.query.class_token is not None
    assert ldbench.load_official("maetok_b_128", official(rows=2 * CHANNELS)).encode(images).logvar is not None


def test_the_larger_file_may_come_under_either_name():
    assert ldbench.load_official("maetok_b_128_512", official()).image_size == 16


def test_a_folder_in_hugging_faces_layout_is_read_with_its_settings(tmp_path, images):
    state = official()
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"num_latent_tokens": TOKENS, "codebook_embed_dim": CHANNELS, "enc_token_drop": 0.0})
    )
    from_folder, direct = ldbench.load_official("maetok_b_128", tmp_path), ldbench.load_official("maetok_b_128", state)
    assert torch.equal(from_folder.encode(images).mean, direct.encode(images).mean)
    (tmp_path / "config.json").write_text(json.dumps({"num_latent_tokens": 64}))
    with pytest.raises(ValueError, match="num_latent_tokens 64, but the tensors have 3"):
        ldbench.load_official("maetok_b_128", tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        ldbench.load_official("maetok_b_128", tmp_path)


def test_the_training_modules_decoders_and_teachers_are_dropped(images):
    extras = {
        "decoder_hog.mask_token": torch.zeros(1),
        "to_pixel_clip.weight": torch.zeros(1),
        "repa_model.cls_token": torch.zeros(1),
    }
    extras |= {
        "post_quant_conv_dino.bias": torch.zeros(1),
        "projection.0.weight": torch.zeros(1),
        "hog_generator.weight_x": torch.zeros(1),
    }
    state = official()
    trained = {f"module.{key}": value for key, value in {**state, **extras}.items()}
    kept, plain = (
        ldbench.load_official("maetok_b_128", {"model": trained}),
        ldbench.load_official("maetok_b_128", state),
    )
    assert torch.equal(kept.encode(images).mean, plain.encode(images).mean)


def test_averaged_weights_of_a_training_checkpoint_come_first_and_it_is_said(images, tmp_path, caplog):
    averaged = official()
    torch.save({"model": {key: value + 1 for key, value in averaged.items()}, "ema": averaged}, tmp_path / "maetok.pt")
    with caplog.at_level("INFO", "ldbench"):
        loaded = ldbench.load_official("maetok_b_128", tmp_path / "maetok.pt")
    expected = ldbench.load_official("maetok_b_128", averaged)
    assert torch.equal(loaded.encode(images).mean, expected.encode(images).mean)
    assert "maetok.pt: those under `ema` (it also holds model)" in caplog.text


def test_a_file_with_a_mask_token_keeps_it_and_one_without_gets_zeros():
    token = torch.randn(1, 1, WIDTH)
    with_token = ldbench.load_official("maetok_b_128", official() | {"encoder.mask_token": token})
    assert torch.equal(with_token.encoder.mask_token.data, token)
    assert not ldbench.load_official("maetok_b_128", official()).encoder.mask_token.any()


def test_what_is_missing_unknown_or_misshapen_is_named():
    state = official()
    for broken, message in (
        ({key: value for key, value in state.items() if key != "quant_conv.bias"}, r"missing quant_conv\.bias"),
        (state | {"quantize.embedding": torch.zeros(1)}, r"unknown quantize\.embedding"),
        (state | {"decoder.freqs": torch.zeros(2, 2, 10)}, r"decoder\.freqs has the shape"),
        (state | {"quant_conv.weight": torch.zeros(3, 2, WIDTH)}, r"quant_conv\.weight has the shape"),
        (state | {"quant_conv.weight": torch.zeros(5, WIDTH)}, r"encoder\.to_latent\.weight"),
    ):
        with pytest.raises(ValueError, match=message):
            ldbench.load_official("maetok_b_128", broken)


def test_the_catalog_names_their_repository_on_the_hub():
    for name in ("maetok_b_128", "maetok_b_128_512"):
        entry = ldbench.list_official()[name]
        assert entry.hub.startswith("MAETok/")
        assert entry.licence
        assert "ICML 2025" in entry.citation
