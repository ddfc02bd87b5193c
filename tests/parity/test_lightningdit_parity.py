"""LightningDiT against the official code's numbers: all its options, its sizes, and its guidance of three channels."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.parity.cases import each_case
from tests.parity.networks import build, guide, rotary_tables, settings_of

from ldbench.layers.position import sincos_2d

pytestmark = pytest.mark.parity


def shapes(facts: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a network of any options, without tables; LightningDiT has 256 time frequencies, mlp_ratio 4."""
    width, patch, channels = facts["hidden_size"], facts["patch_size"], facts["in_channels"]
    rows = patch * patch * channels * (2 if facts.get("learn_sigma") else 1)
    layers = {
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "x_embedder.proj": (width, channels, patch, patch),
    }
    layers |= {"final_layer.linear": (rows, width), "final_layer.adaLN_modulation.1": (2 * width, width)}
    bare = {"y_embedder.embedding_table": (facts["num_classes"] + 1, width)}
    bare |= {"final_layer.norm_final": (width,)} if facts["use_rmsnorm"] else {}
    hidden = int(2 / 3 * 4 * width)
    for block in (f"blocks.{i}" for i in range(facts["depth"])):
        layers |= {f"{block}.attn.qkv": (3 * width, width), f"{block}.attn.proj": (width, width)}
        layers |= {f"{block}.adaLN_modulation.1": ((4 if facts["wo_shift"] else 6) * width, width)}
        if facts["use_swiglu"]:
            layers |= {f"{block}.mlp.w12": (2 * hidden, width), f"{block}.mlp.w3": (width, hidden)}
        else:
            layers |= {f"{block}.mlp.fc1": (4 * width, width), f"{block}.mlp.fc2": (width, 4 * width)}
        if facts["use_rmsnorm"]:
            bare |= {f"{block}.norm1": (width,), f"{block}.norm2": (width,)}
        if facts["use_qknorm"]:
            head = (width // facts["num_heads"],)
            (bare if facts["use_rmsnorm"] else layers).update(
                {f"{block}.attn.q_norm": head, f"{block}.attn.k_norm": head}
            )
    found = {
        f"{layer}.{kind}": shape if kind == "weight" else shape[:1]
        for layer, shape in layers.items()
        for kind in ("weight", "bias")
    }
    return found | {f"{layer}.weight": shape for layer, shape in bare.items()}


@each_case("lightningdit_")
def test_velocities_are_the_official_ones(case):
    facts, rotary = case.config, case.config["use_rope"]
    weights = case.weights(case.manifest or shapes(facts) | dict.fromkeys(case.facts["weights"]["kept"], ()))
    width, *_, patch = weights["x_embedder.proj.weight"].shape
    head_dim = (
        width // facts["num_heads"] if "num_heads" in facts else case.manifest.get("feat_rope.freqs_cos", (0, 0))[1]
    )
    settings = settings_of(case) | {"use_rope": rotary}
    side = facts["input_size"] // patch
    weights |= {"pos_embed": sincos_2d((side, side), width=width)}
    weights |= rotary_tables("feat_rope", side, head_dim) if rotary else {}
    network = build(case.official_name("lightningdit_b_1"), weights, settings)
    x, y, y_null = network.latent.from_map(case.input("x")), case.input("y"), case.input("y_null")
    with torch.no_grad():
        case.check("out", network.latent.to_map(network(x, case.input("t"), y)))
        for when, outputs in (("cfg_t_below", ("cfg_below", "cfg_no_interval")), ("cfg_t_above", ("cfg_above",))):
            t = torch.full((len(x),), facts[when])
            known, unknown = network(x, t, y), network(x, t, y_null)
            for output in outputs:
                inside = facts[when] >= facts["cfg_interval_start"] or output == "cfg_no_interval"
                case.check(output, network.latent.to_map(guide(known, unknown, facts["cfg_scale"] if inside else 1.0)))
