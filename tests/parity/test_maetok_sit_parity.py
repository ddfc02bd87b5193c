"""MAETok's SiT, on a sequence of latent tokens, against the official code's numbers."""

import pytest
import torch

from ldbench import official
from ldbench.artifacts import store
from ldbench.layers.position import sincos_1d

pytestmark = pytest.mark.parity


def test_velocities_and_positions_are_the_official_ones(open_case):
    case = open_case("maetok_sit_b_1")
    found = official.convert("maetok_sit_b_1", {**case.weights(), "pos_embed": sincos_1d(128, width=768)}, {})
    sit = store.build(store.Blueprint(found.group, found.component, found.keywords), found.state)
    assert sit.latent.grid is None
    case.check("pos_embed", sit.positions)
    with torch.no_grad():
        case.check("out", sit(case.input("x"), case.input("t"), case.input("y")))
