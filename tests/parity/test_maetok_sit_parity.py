"""MAETok's SiT, on a sequence of latent tokens, against the official code's numbers."""

import pytest
import torch
from tests.parity.cases import each_case
from tests.parity.networks import build, settings_of

from ldbench.layers.position import sincos_1d

pytestmark = pytest.mark.parity


@each_case("maetok_sit_")
def test_velocities_and_positions_are_the_official_ones(case):
    weights = case.weights()
    positions = sincos_1d(case.config["input_size"], width=len(weights["x_embedder.weight"]))
    sit = build(case.official_name("maetok_sit_b_1"), {**weights, "pos_embed": positions}, settings_of(case))
    assert sit.latent.grid is None
    assert sit.null_class == case.config["num_classes"]
    case.check("pos_embed", sit.positions)
    with torch.no_grad():
        case.check("out", sit(case.input("x"), case.input("t"), case.input("y")))
