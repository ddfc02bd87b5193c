"""DiT against the official code's numbers: the network, and its guidance of three channels."""

import pytest
import torch

from ldbench import official
from ldbench.artifacts import store
from ldbench.layers.position import sincos_2d

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", ["dit_s_2", "dit_s_4", pytest.param("dit_xl_2", marks=pytest.mark.slow)])
def test_predictions_and_variances_are_the_official_ones(open_case, name):
    case = open_case(name)
    side, width = 32 // int(name[-1]), case.manifest()["pos_embed"][-1]
    found = official.convert(name, {**case.weights(), "pos_embed": sincos_2d((side, side), width=width)}, {})
    dit = store.build(store.Blueprint(found.group, found.component, found.keywords), found.state)
    assert dit.learned_variance
    assert dit.null_class == 1000
    x, y, y_null = dit.latent.from_map(case.input("x")), case.input("y"), case.input("y_null")
    as_maps = lambda out: torch.cat([dit.latent.to_map(half) for half in out.chunk(2, dim=-1)], dim=1)  # noqa: E731
    with torch.no_grad():
        case.check("out", as_maps(dit(x, case.input("t"), y)))
        t = torch.full((len(x),), case.facts["config"]["cfg_t"])
        known, unknown = dit(x, t, y), dit(x, t, y_null)
    guided = unknown[..., :3] + case.facts["config"]["cfg_scale"] * (known - unknown)[..., :3]
    case.check("cfg", as_maps(torch.cat([torch.cat([guided, own[..., 3:]], dim=-1) for own in (known, unknown)])))
