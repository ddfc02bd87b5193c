"""SiT against the official code's numbers: the network, and its guidance of three channels."""

import pytest
import torch

from ldbench import official
from ldbench.artifacts import store
from ldbench.layers.position import sincos_2d

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", ["sit_s_2", "sit_b_2"])
def test_velocities_are_the_official_ones(open_case, name):
    case = open_case(name)
    width = case.manifest()["pos_embed"][-1]
    found = official.convert(name, {**case.weights(), "pos_embed": sincos_2d((16, 16), width=width)}, {})
    sit = store.build(store.Blueprint(found.group, found.component, found.keywords), found.state)
    assert not sit.learned_variance
    x, y, y_null = sit.latent.from_map(case.input("x")), case.input("y"), case.input("y_null")
    with torch.no_grad():
        case.check("out", sit.latent.to_map(sit(x, case.input("t"), y)))
        t = torch.full((len(x),), case.facts["config"]["cfg_t"])
        known, unknown = sit(x, t, y), sit(x, t, y_null)
    guided = unknown[..., :3] + case.facts["config"]["cfg_scale"] * (known - unknown)[..., :3]
    case.check(
        "cfg", torch.cat([sit.latent.to_map(torch.cat([guided, own[..., 3:]], dim=-1)) for own in (known, unknown)])
    )
