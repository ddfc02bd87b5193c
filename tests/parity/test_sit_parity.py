"""SiT against the official code's numbers: the network, and its guidance of three channels."""

import pytest
import torch
from tests.parity.cases import each_case
from tests.parity.networks import build, guide, settings_of

from ldbench.layers.position import sincos_2d

pytestmark = pytest.mark.parity


@each_case("sit_")
def test_velocities_are_the_official_ones(case):
    weights, facts = case.weights(), case.config
    width, *_, patch = weights["x_embedder.proj.weight"].shape
    side = facts["input_size"] // patch
    sit = build(
        case.official_name("sit_s_2"), {**weights, "pos_embed": sincos_2d((side, side), width=width)}, settings_of(case)
    )
    assert sit.null_class == facts["num_classes"]
    assert not sit.learned_variance, "its variance is not read, whether the file has one or not"
    x, y, y_null = sit.latent.from_map(case.input("x")), case.input("y"), case.input("y_null")
    with torch.no_grad():
        case.check("out", sit.latent.to_map(sit(x, case.input("t"), y)))
        t = torch.full((len(x),), facts["cfg_t"])
        known, unknown = sit(x, t, y), sit(x, t, y_null)
    case.check("cfg", sit.latent.to_map(guide(known, unknown, facts["cfg_scale"])))
