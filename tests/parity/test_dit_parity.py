"""DiT against the official code's numbers: the network, and its guidance of three channels."""

import pytest
import torch
from tests.parity.cases import each_case
from tests.parity.networks import build, guide, settings_of

from ldbench.layers.position import sincos_2d

pytestmark = pytest.mark.parity


@each_case("dit_")
def test_predictions_and_variances_are_the_official_ones(case):
    weights, facts = case.weights(), case.config
    width, *_, patch = weights["x_embedder.proj.weight"].shape
    side = facts["input_size"] // patch
    dit = build(
        case.official_name("dit_s_2"), {**weights, "pos_embed": sincos_2d((side, side), width=width)}, settings_of(case)
    )
    assert dit.learned_variance == facts["learn_sigma"]
    assert dit.null_class == facts["num_classes"]
    x, y, y_null = dit.latent.from_map(case.input("x")), case.input("y"), case.input("y_null")
    to_map = dit.latent.to_map
    as_maps = lambda out: torch.cat([to_map(part) for part in out.split(x.shape[-1], dim=-1)], dim=1)  # noqa: E731
    with torch.no_grad():
        case.check("out", as_maps(dit(x, case.input("t"), y)))
        t = torch.full((len(x),), facts["cfg_t"])
        known, unknown = dit(x, t, y), dit(x, t, y_null)
    case.check("cfg", as_maps(guide(known, unknown, facts["cfg_scale"])))
