"""DiT's official checkpoints: inferred keywords, wrapped checkpoints, and error messages."""

import argparse

import pytest
import torch

from ldbench.core.latent import LatentSpec

INPUTS = (
    torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(1)),
    torch.tensor([3, 700]),
    torch.tensor([0, 5]),
)


def test_everything_is_inferred_from_the_tensors(transformer_state, convert_and_build):
    dit = convert_and_build("dit_s_2", transformer_state(depth=3))
    assert dit.latent == LatentSpec(16, 3, (4, 4))
    assert (dit.num_classes, dit.null_class, dit.learned_variance) == (5, 5, True)
    assert len(dit.transformer.blocks) == 3
    assert dit(*INPUTS).shape == (2, 16, 6)
    assert not dit.training
    assert convert_and_build("dit_s_2", transformer_state(outputs=3))(*INPUTS).shape == (2, 16, 3)
    assert convert_and_build("dit_s_4", transformer_state(patch=1)).patches.patch_size == 1
    normed = convert_and_build("dit_s_2", transformer_state(qk_norm=True), {})  # whose width shows the heads
    assert normed.transformer.blocks[0].attn.num_heads == 2


def test_a_convolution_of_the_map_becomes_the_linear_map_of_its_patches(transformer_state, convert_and_build):
    state = transformer_state()
    dit = convert_and_build("dit_s_2", state)
    theirs = torch.nn.functional.conv2d(
        dit.latent.to_map(INPUTS[0]), state["x_embedder.proj.weight"], state["x_embedder.proj.bias"], stride=2
    )
    torch.testing.assert_close(dit.embed(dit.patches.split(INPUTS[0])), theirs.flatten(2).transpose(1, 2))


def test_a_training_checkpoint_opens_at_its_averaged_weights_whatever_stands_before_their_keys(
    transformer_state, convert_and_build, tmp_path
):
    averaged = transformer_state()
    moving = {f"module.{key}": value + 1 for key, value in averaged.items()}
    wrapped = {f"module._orig_mod.{key}": value for key, value in averaged.items()}
    torch.save(
        {"model": moving, "ema": wrapped, "opt": {"state": {}}, "args": argparse.Namespace(model="DiT-S/2")},
        tmp_path / "0400000.pt",
    )
    expected = convert_and_build("dit_s_2", averaged)(*INPUTS)
    for source in (tmp_path / "0400000.pt", {"state_dict": wrapped}, {"model": wrapped}):
        assert torch.equal(convert_and_build("dit_s_2", source)(*INPUTS), expected)


def test_a_table_may_be_absent_and_must_be_the_fixed_one_where_it_is_there(transformer_state, convert_and_build):
    state = transformer_state()
    bare = {key: value for key, value in state.items() if key != "pos_embed"}
    dit = convert_and_build("dit_s_2", bare, {"num_heads": 2, "input_size": 4})
    assert torch.equal(dit(*INPUTS), convert_and_build("dit_s_2", state)(*INPUTS))
    assert convert_and_build("dit_s_2", bare).latent.grid == (32, 32)  # that of 256 px
    for table, message in (
        (state["pos_embed"] + 0.01, "differs by 1.0e-02 from the expected fixed table"),
        (torch.zeros(1, 6, 24), "Expected .1, 4, 24."),
    ):
        with pytest.raises(ValueError, match=f"pos_embed .*{message}"):
            convert_and_build("dit_s_2", state | {"pos_embed": table})
    with pytest.raises(ValueError, match="input_size 8, but the tensors have 4"):
        convert_and_build("dit_s_2", state, {"num_heads": 2, "input_size": 8})


def test_labels_are_classes_and_a_null_class_unless_set_otherwise(transformer_state, convert_and_build):
    state = transformer_state(labels=6)
    unconditional = convert_and_build("dit_s_2", state, {"num_heads": 2, "num_classes": 6})
    assert (unconditional.num_classes, unconditional.null_class) == (6, None)
    alone = convert_and_build("dit_s_2", transformer_state(labels=1))
    assert (alone.num_classes, alone.null_class) == (1, None)
    with pytest.raises(ValueError, match="num_classes 9, but the tensors have 6 labels"):
        convert_and_build("dit_s_2", state, {"num_heads": 2, "num_classes": 9})


def test_heads_that_cannot_be_inferred_are_required(transformer_state, convert_and_build):
    with pytest.raises(ValueError, match="no official model has its width 24"):
        convert_and_build("dit_s_2", transformer_state(), {})


def test_what_is_missing_unknown_or_misshapen_is_named(transformer_state, convert_and_build):
    state = transformer_state()
    for broken, message in (
        (
            {key: value for key, value in state.items() if key != "final_layer.linear.bias"},
            r"no dit_s_2: missing final_layer\.linear\.bias",
        ),
        (state | {"blocks.2.attn.qkv.weight": torch.zeros(1)}, r"missing blocks\.2\."),
        (state | {"feat_rope.freqs_cos": torch.zeros(1)}, r"unknown feat_rope\.freqs_cos"),
        (transformer_state(lightning=True), r"missing .*unknown"),
        (transformer_state(sequence=True), r"missing x_embedder\.proj\.bias"),
        (state | {"x_embedder.proj.weight": torch.zeros(24, 3)}, r"x_embedder\.proj\.weight has the shape \(24, 3\)"),
        (
            state | {"final_layer.linear.weight": torch.zeros(20, 24)},
            "has 20 rows. Expected 12 for 3 channels, or twice as many",
        ),
        (state | {"final_layer.linear.bias": torch.zeros(20)}, "Expected 12 for 3 channels"),
        (
            state | {"blocks.1.attn.qkv.weight": torch.zeros(3, 24)},
            r"transformer\.blocks\.1\.attn\.qkv\.weight \(3, 24\), expected \(72, 24\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            convert_and_build("dit_s_2", broken)


SIZES = [f"{size}_{patch}" for size in ("s", "b", "l", "xl") for patch in (2, 4, 8)]


def test_every_size_imports(import_manifest, some):
    for size in some(SIZES, 4):
        keywords = import_manifest(f"dit_{size}", f"dit_{size}_256")
        assert keywords["patch_size"] == int(size[-1])
        assert keywords["latent"] == {"num_tokens": 1024, "channels": 4, "grid": [32, 32]}, size
        assert (keywords["num_classes"], keywords["has_null_class"], keywords["learned_variance"]) == (
            1000,
            True,
            True,
        ), size
        assert (keywords["num_heads"], keywords["mlp_ratio"]) == ({"s": 6, "b": 12, "l": 16, "xl": 16}[size[:-2]], 4.0)


def test_the_size_of_512_px_comes_under_the_same_name(import_manifest):
    assert import_manifest("dit_xl_2", "dit_xl_2_512")["latent"]["grid"] == [64, 64]
