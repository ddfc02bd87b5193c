"""DiT^DH's official checkpoints: sizes, heads and where the head begins are read off the tensors, or asked for."""

from typing import Any

import pytest
import torch
from tests.parity.networks import rotary_tables
from torch import Tensor

import ldbench
from ldbench.layers.position import sincos_2d

X = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(1))
INPUTS = (X, torch.tensor([0.1, 0.8]), torch.tensor([0, 3]))
TABLES = ("enc_feat_rope.freqs_cos", "enc_feat_rope.freqs_sin", "dec_feat_rope.freqs_cos", "dec_feat_rope.freqs_sin")


def state_of(
    widths: tuple[int, int] = (24, 32),
    heads: tuple[int, int] = (2, 4),
    *,
    depth: tuple[int, int] = (2, 1),
    qk_norm: bool = False,
    rms: bool = True,
    swiglu: bool = True,
    shifts: bool = True,
) -> dict[str, Tensor]:
    """A small state dict in the official layout, on a 4 x 4 map of 5 channels with 3 classes."""
    width, head_width = widths
    layers: dict[str, tuple[int, ...]] = {
        "s_embedder.proj": (width, 5, 1, 1),
        "x_embedder.proj": (head_width, 5, 1, 1),
        "t_embedder.mlp.0": (width, 512),
        "t_embedder.mlp.2": (width, width),
        "final_layer.linear": (5, head_width),
        "final_layer.adaLN_modulation.1": (2 * head_width, head_width),
    }
    layers |= {"s_projector": (head_width, width)} if width != head_width else {}
    bare = {"y_embedder.embedding_table": (4, width)} | ({"final_layer.norm_final": (head_width,)} if rms else {})
    for i in range(sum(depth)):
        block, d, h = (f"blocks.{i}", *((width, heads[0]) if i < depth[0] else (head_width, heads[1])))
        hidden = int(2 / 3 * 4 * d) if swiglu else 4 * d
        layers |= {f"{block}.attn.qkv": (3 * d, d), f"{block}.attn.proj": (d, d)}
        layers |= {f"{block}.adaLN_modulation.1": ((6 if shifts else 4) * d, d)}
        names = ("w12", "w3") if swiglu else ("fc1", "fc2")
        layers |= {
            f"{block}.mlp.{names[0]}": ((2 if swiglu else 1) * hidden, d),
            f"{block}.mlp.{names[1]}": (d, hidden),
        }
        bare |= {f"{block}.norm1": (d,), f"{block}.norm2": (d,)} if rms else {}
        if qk_norm:
            norms = {f"{block}.attn.q_norm": (d // h,), f"{block}.attn.k_norm": (d // h,)}
            (bare if rms else layers).update(norms)
    rng = torch.Generator().manual_seed(0)
    shapes = {f"{layer}.weight": shape for layer, shape in (*layers.items(), *bare.items())}
    shapes |= {f"{layer}.bias": shape[:1] for layer, shape in layers.items()} | {"t_embedder.W": (256,)}
    state = {key: 0.2 * torch.randn(shape, generator=rng) for key, shape in shapes.items()}
    state["pos_embed"] = sincos_2d((4, 4), width=width)
    for prefix, d, h in (("enc_feat_rope", width, heads[0]), ("dec_feat_rope", head_width, heads[1])):
        state |= rotary_tables(prefix, 4, d // h)
    return state


def depths(network: Any) -> list[int]:
    return [len(network.encoder), len(network.head.blocks)]


def test_everything_is_read_off_the_tensors(convert_and_build):
    for name in ("ditdh", "ditdh_s_1", "ditdh_xl_1"):
        network = convert_and_build(name, state_of(), {})
        assert (network.latent.grid, network.latent.channels, network.null_class) == ((4, 4), 5, 3)
        assert depths(network) == [2, 1]
        assert [blocks[0].attn.num_heads for blocks in (network.encoder, network.head.blocks)] == [2, 4]
        assert network(*INPUTS).shape == (2, 16, 5)


@pytest.mark.parametrize("options", [{"qk_norm": True}, {"swiglu": False}, {"shifts": False}], ids=str)
def test_its_switches_are_read_off_the_tensors(options, convert_and_build):
    network = convert_and_build("ditdh", state_of(**options), {})
    assert torch.isfinite(network(*INPUTS)).all()
    assert not torch.equal(network(*INPUTS), convert_and_build("ditdh", state_of(), {})(*INPUTS))


def test_without_rms_there_are_no_rotary_positions_unless_a_table_or_a_setting_says_so(convert_and_build):
    plain = {key: value for key, value in state_of(rms=False).items() if key not in TABLES}
    settings = {"num_heads": [2, 4]}
    assert convert_and_build("ditdh", plain, settings).cos is None
    assert convert_and_build("ditdh", plain, settings | {"use_rope": True}).head_cos is not None
    assert convert_and_build("ditdh", state_of(rms=False), {}).cos is not None


def test_of_equal_widths_the_heads_or_a_setting_show_where_the_head_begins(convert_and_build):
    normed = state_of((24, 24), (2, 6), qk_norm=True)
    assert depths(convert_and_build("ditdh", normed, {})) == [2, 1]
    alike = state_of((24, 24), (2, 2))
    with pytest.raises(ValueError, match=r"do not show which are the encoder's .* Set depth=\[1,2\]"):
        convert_and_build("ditdh", alike, {})
    assert depths(convert_and_build("ditdh", alike, {"depth": [2, 1]})) == [2, 1]
    assert depths(ldbench.load_official("ditdh", alike, depth=[1, 2]).backbone) == [1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": [1, 2]}, r"depth is \[1, 2\], but the tensors have 3 blocks, which change at 2"),
        ({"depth": [2, 2]}, "but the tensors have 3 blocks"),
        ({"depth": 3}, r"depth is 3\. Expected two whole numbers, as in depth=\[12,2\]"),
        ({"num_heads": [2, 2]}, r"num_heads is \[2, 2\], but the tensors have 4 in the head"),
        ({"input_size": 8}, "input_size 8, but the tensors have 4"),
        ({"use_rope": False}, "use_rope False, but the tensors have True"),
    ],
    ids=str,
)
def test_settings_that_contradict_the_tensors_are_refused(settings, message, convert_and_build):
    with pytest.raises(ValueError, match=message):
        convert_and_build("ditdh", state_of(), settings)


def test_tables_may_be_absent_and_must_be_the_fixed_ones_where_they_are_there(convert_and_build):
    state, settings = state_of(), {"num_heads": [2, 4]}
    expected = convert_and_build("ditdh", state, {})(*INPUTS)
    bare = {key: value for key, value in state.items() if key not in (*TABLES, "pos_embed")}
    assert torch.equal(convert_and_build("ditdh", bare, settings | {"input_size": 4})(*INPUTS), expected)
    assert convert_and_build("ditdh", bare, settings).latent.grid == (16, 16)
    with pytest.raises(ValueError, match="no official model has a width of 24"):
        convert_and_build("ditdh", bare, {})
    for key in (*TABLES, "pos_embed"):
        with pytest.raises(ValueError, match=f"{key} differs by"):
            convert_and_build("ditdh", state | {key: state[key] + 0.1}, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("s_projector.weight"), r"missing s_projector\.weight"),
        (lambda state: state.pop("t_embedder.W"), r"missing t_embedder\.W"),
        (
            lambda state: state.update({"blocks.0.attn.q_norm.weight": torch.zeros(12)}),
            r"missing blocks\.0\.attn\.k_norm",
        ),
        (lambda state: state.update({"other": torch.zeros(1)}), "unknown other"),
        (lambda state: state.update({"final_layer.linear.weight": torch.zeros(6, 32)}), "has 6 rows. Expected 5"),
    ],
)
def test_what_is_missing_unknown_or_of_another_shape_is_named(change, message, convert_and_build):
    state = state_of()
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_and_build("ditdh", state, {})


def test_it_is_a_generator_whose_time_is_one_at_the_noise():
    generator = ldbench.load_official("ditdh_xl_1", state_of(), stats=(0.0, 1.0))
    assert generator.objective.network_time.direction == -1
    assert generator.objective.times.shift == "dimension"
