"""DiT^DH against the official code's numbers: the forward pass, and classifier-free guidance inside an interval."""

import re

import pytest
import torch
from tests.parity.cases import each_case
from tests.parity.networks import build, rotary_tables

from ldbench.layers.position import sincos_2d

pytestmark = pytest.mark.parity
GUIDANCE = re.compile(r"scale ([\d.]+) inside \[([\d.]+), ([\d.]+)\], all channels, labels (\d+) and null")


@each_case("ditdh_")
def test_outputs_are_the_official_ones(case):
    facts, manifest = case.config, case.manifest
    side = facts["input_size"] // facts["patch_size"]
    weights = case.weights() | {"pos_embed": sincos_2d((side, side), width=facts["hidden_size"][0])}
    for prefix in ("enc_feat_rope", "dec_feat_rope"):
        weights |= rotary_tables(prefix, side, manifest[f"{prefix}.freqs_cos"][1])
    alike = manifest["blocks.0.attn.qkv.weight"] == manifest[f"blocks.{sum(facts['depth']) - 1}.attn.qkv.weight"]
    settings = {"depth": facts["depth"]} if alike and not facts.get("use_qknorm") else {}  # no tensor shows it
    network = build("ditdh", weights, settings)
    assert [len(network.encoder), len(network.head.blocks)] == facts["depth"]
    assert [blocks[0].attn.num_heads for blocks in (network.encoder, network.head.blocks)] == facts["num_heads"]
    x, t, y = network.latent.from_map(case.input("x")), case.input("t"), case.input("y")
    null = torch.full_like(y, facts["num_classes"])
    scale, low, high, label = (float(number) for number in GUIDANCE.fullmatch(facts["cfg"]).groups())
    with torch.no_grad():
        case.check("out", network.latent.to_map(network(x, t, y)))
        known, unknown = network(x, t, torch.full_like(y, int(label))), network(x, t, null)
    inside = ((t >= low) & (t <= high))[:, None, None]
    case.check("cfg", network.latent.to_map(torch.where(inside, unknown + scale * (known - unknown), known)))
