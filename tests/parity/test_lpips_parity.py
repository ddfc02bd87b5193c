"""LPIPS on VGG16 against the official code's numbers, with weights that the recipe fills."""

import pytest
import torch
from einops import rearrange
from tests.parity.cases import each_case

from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.lpips import SCALE, SHIFT, LPIPSNetwork, from_taming
from ldbench.losses.perceptual import LPIPS

pytestmark = pytest.mark.parity

DARKER = 0.9  # "between a and 0.9*a": the case's text


@pytest.fixture
def taming(case):
    """The state dict of the official LPIPS: the recipe's tensors, and the two constants of its scaling layer."""
    constants = {
        "scaling_layer.shift": torch.tensor(SHIFT).view(1, 3, 1, 1),
        "scaling_layer.scale": torch.tensor(SCALE).view(1, 3, 1, 1),
    }
    return {**case.weights(), **constants}


@each_case("lpips")
def test_distances_and_features_are_the_official_numbers(case, taming):
    network = LPIPSNetwork(dropout=0.5).eval()
    network.load_state_dict(from_taming(taming))
    a, b = case.input("a"), case.input("b")
    with torch.no_grad():
        case.check("distance", rearrange(network(a, b), "b -> b 1 1 1"))
        case.check("distance_self", rearrange(network(a, DARKER * a), "b -> b 1 1 1"))
        for stage, features in enumerate(network.features(a)):
            case.check(f"mid_relu_{stage}", features)


@each_case("lpips", only=())
def test_the_loss_term_is_the_official_distance_averaged_over_the_batch(case, taming):
    term = LPIPS(
        weight=1.0,
        start=0,
        warmup=0,
        dropout=0.0,
        weights={f"perceptual_loss.{key}": value for key, value in taming.items()},
        heads=None,
    )
    a, b = case.input("a"), case.input("b")
    recon = Reconstruction(images=b, z=torch.zeros(len(b), 1, 1), posterior=Posterior(torch.zeros(len(b), 1, 1)))
    with torch.no_grad():
        distance = term(a, recon, torch.zeros(len(b)))
    facts = case.facts["outputs"]["distance"]
    assert abs(distance.item() - facts["stats"]["mean"]) <= case.tolerance * facts["scale"]
