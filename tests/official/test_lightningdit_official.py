"""LightningDiT's official checkpoints: its switches are read off the tensors, and tables must be the computed ones."""

import pytest
import torch

from ldbench.official import swiglu_ratio

INPUTS = (
    torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(1)),
    torch.tensor([0.1, 0.8]),
    torch.tensor([0, 5]),
)


def test_everything_is_read_off_the_tensors(transformer_state, convert_and_build):
    # rotary tables show the heads
    network = convert_and_build("lightningdit_b_1", transformer_state(lightning=True, outputs=3), {})
    assert network.latent.grid == (4, 4)
    assert (network.null_class, network.learned_variance) == (5, False)
    assert network.cos is not None
    assert network.transformer.blocks[0].attn.num_heads == 2
    assert network(*INPUTS).shape == (2, 16, 3)
    without = convert_and_build("lightningdit_b_1", transformer_state(lightning=True, shifts=False), {})
    assert without.transformer.blocks[0].modulation.out_features == 4 * 24
    normed = convert_and_build("lightningdit_b_1", transformer_state(lightning=True, qk_norm=True), {})
    assert normed.transformer.blocks[0].attn.q_norm.weight.shape == (12,)
    plain = convert_and_build("lightningdit_b_1", transformer_state(qk_norm=True), {})
    assert plain.cos is None
    assert plain.transformer.blocks[0].attn.q_norm.bias is not None


def test_outputs_beyond_the_channels_are_dropped(transformer_state, convert_and_build):
    both, state = transformer_state(lightning=True), transformer_state(lightning=True)
    for kind in ("weight", "bias"):
        rows = both[f"final_layer.linear.{kind}"]
        state[f"final_layer.linear.{kind}"] = torch.cat([rows[6 * place : 6 * place + 3] for place in range(4)])
    expected = convert_and_build("lightningdit_b_1", state)(*INPUTS)
    assert torch.equal(convert_and_build("lightningdit_b_1", both)(*INPUTS), expected)


def test_tables_may_be_absent_and_must_be_the_fixed_ones_where_they_are_there(transformer_state, convert_and_build):
    state = transformer_state(lightning=True)
    expected = convert_and_build("lightningdit_b_1", state)(*INPUTS)
    no_rope = {key: value for key, value in state.items() if not key.startswith("feat_rope.")}
    no_table = {key: value for key, value in state.items() if key != "pos_embed"}
    neither = {key: value for key, value in no_rope.items() if key != "pos_embed"}
    for less, settings in ((no_rope, {}), (no_table, {}), (neither, {"input_size": 4})):
        assert torch.equal(convert_and_build("lightningdit_b_1", less, {"num_heads": 2, **settings})(*INPUTS), expected)
    assert convert_and_build("lightningdit_b_1", neither).latent.grid == (16, 16)  # VA-VAE's at 256 px
    without_rope = convert_and_build("lightningdit_b_1", no_rope, {"num_heads": 2, "use_rope": False})
    assert not torch.equal(without_rope(*INPUTS), expected)
    for key, value, message in (
        ("feat_rope.freqs_sin", -state["feat_rope.freqs_sin"], "differs by .* from the expected fixed table"),
        ("feat_rope.freqs_cos", state["feat_rope.freqs_cos"][:3], r"has the shape \(3, 12\)"),
        ("pos_embed", state["pos_embed"].flip(1), "differs by"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_and_build("lightningdit_b_1", state | {key: value})
    with pytest.raises(ValueError, match="use_rope False, but the tensors have True"):
        convert_and_build("lightningdit_b_1", state, {"use_rope": False})


def test_one_label_is_a_class_of_its_own(transformer_state, convert_and_build):
    network = convert_and_build("lightningdit_b_1", transformer_state(lightning=True, labels=1))
    assert (network.num_classes, network.null_class) == (1, None)


def test_what_is_missing_or_unknown_is_named(transformer_state, convert_and_build):
    state = transformer_state(lightning=True)
    for broken, message in (
        (
            {key: value for key, value in state.items() if key != "blocks.1.norm2.weight"},
            r"missing blocks\.1\.norm2\.weight",
        ),
        (
            {key: value for key, value in state.items() if key != "final_layer.norm_final.weight"},
            r"missing final_layer\.norm_final",
        ),
        (state | {"blocks.0.attn.k_norm.weight": torch.zeros(12)}, r"unknown blocks\.0\.attn\.k_norm"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_and_build("lightningdit_b_1", broken)


@pytest.mark.parametrize("width", [24, 768, 1024, 1152, 1536, 1792])
def test_the_ratio_of_a_swiglu_follows_from_its_hidden_units(width):
    assert swiglu_ratio(int(2 / 3 * 4 * width), width) == 4.0
    assert int(2 / 3 * int(swiglu_ratio(width, width) * width)) == width


SIZES = {
    "b_1": 12,
    "b_2": 12,
    "l_2": 16,
    "xl_1": 16,
    "xl_2": 16,
    "1p0b_1": 24,
    "1p0b_2": 24,
    "1p6b_1": 28,
    "1p6b_2": 28,
}


def test_every_size_imports(import_manifest, some):
    for size, num_heads in some(SIZES.items(), 3):
        keywords = import_manifest(f"lightningdit_{size}", f"lightningdit_{size}_f16d32")
        assert (keywords["patch_size"], keywords["num_heads"], keywords["mlp_ratio"]) == (
            int(size[-1]),
            num_heads,
            4.0,
        ), size
        assert keywords["latent"]["channels"] == 32, size
        assert (keywords["norm"], keywords["feedforward"], keywords["rope_theta"], keywords["shifts"]) == (
            "rms",
            "swiglu",
            10000.0,
            True,
        ), size


OTHERS = [
    ("xl_1", "xl_1_f16d32_qknorm", {"qk_norm": True}),
    ("xl_2", "xl_2_f8d4", {"latent": {"num_tokens": 1024, "channels": 4, "grid": [32, 32]}}),
    ("b_1", "b_1_f8d16_qknorm", {"latent": {"num_tokens": 1024, "channels": 16, "grid": [32, 32]}, "qk_norm": True}),
    ("b_1", "b_1_f8d16_uncond", {"num_classes": 1, "has_null_class": False}),
    ("b_2", "b_2_f16d32_qknorm", {"patch_size": 2, "qk_norm": True}),
]


def test_other_latents_and_options_import_too(import_manifest):
    for name, manifest, expected in OTHERS:
        keywords = import_manifest(f"lightningdit_{name}", f"lightningdit_{manifest}")
        assert {key: keywords[key] for key in expected} == expected, manifest
