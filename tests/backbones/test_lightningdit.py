"""LightningDiT: the sizes of the paper, its switches, and DiT among them."""

import pytest
import torch

from ldbench.backbones.dit import DiT
from ldbench.backbones.lightningdit import LightningDiT
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.latent import LatentSpec

COUNTS = {  # of the official networks on 16 x 16 x 32 latents, with fixed positions and without rotary tables
    **{"b_1": 130_556_192, "b_2": 130_556_288, "l_2": 458_153_056, "xl_1": 675_256_736, "xl_2": 675_256_832},
    **{"1p0b_1": 1_029_401_120, "1p0b_2": 1_029_401_216, "1p6b_1": 1_631_767_120, "1p6b_2": 1_631_767_216},
}
VAVAE = LatentSpec(256, 32, (16, 16))
SWITCHES = {"norm": "rms", "feedforward": "swiglu", "rope_theta": 10000.0, "qk_norm": False, "shifts": True}
PLAIN = {"norm": "layer", "feedforward": "gelu", "rope_theta": None}


def meta(size: str, latent: LatentSpec, **changes) -> LightningDiT:
    """A size of the paper without memory."""
    node = Registry().compose(None, ["+backbone=lightningdit", f"+size=lightningdit_{size}"]).generator.backbone
    with torch.device("meta"):
        return instantiate(
            {**node, **changes}, latent=latent, num_classes=1000, has_null_class=True, learned_variance=False
        )


def count(network: LightningDiT) -> int:
    return sum(p.numel() for p in network.parameters()) + network.positions.numel()


@pytest.mark.parametrize("size", COUNTS)
def test_sizes_have_the_official_counts(size):
    assert count(meta(size, VAVAE)) == COUNTS[size]


def test_other_latents_and_switches_have_the_official_counts_too():
    assert count(meta("xl_1", VAVAE, qk_norm=True)) == 675_260_768
    assert count(meta("xl_2", LatentSpec(1024, 4, (32, 32)))) == 675_219_856
    assert count(meta("b_1", LatentSpec(1024, 16, (32, 32)), qk_norm=True)) == 131_122_960


def tiny(**changes) -> LightningDiT:
    """A small one away from its start, at which the output is zero."""
    torch.manual_seed(0)
    given = {
        "latent": LatentSpec(24, 3, (4, 6)),
        "num_classes": 5,
        "has_null_class": True,
        "learned_variance": False,
        "patch_size": 2,
    }
    shape = {"width": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 3.0, "class_std": 0.02, "checkpointing": False}
    network = LightningDiT(**{**given, **shape, **SWITCHES, **changes})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)  # so that attention is not nearly the same everywhere
    return network


@pytest.fixture
def inputs():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, 24, 3, generator=rng), torch.tensor([0.2, 0.7]), torch.tensor([1, 5])


def test_with_every_switch_off_it_is_dit(inputs):
    network = tiny(**PLAIN)
    given = {
        "latent": LatentSpec(24, 3, (4, 6)),
        "num_classes": 5,
        "has_null_class": True,
        "learned_variance": False,
        "patch_size": 2,
    }
    dit = DiT(
        **given, width=16, depth=2, num_heads=2, mlp_ratio=3.0, qk_norm=False, class_std=0.02, checkpointing=False
    )
    dit.load_state_dict(network.state_dict())
    assert torch.equal(dit(*inputs), network(*inputs))


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "layer"},
        {"feedforward": "gelu"},
        {"rope_theta": None},
        {"rope_theta": 100.0},
        {"qk_norm": True},
        {"shifts": False},
    ],
    ids=str,
)
def test_every_switch_changes_the_numbers(inputs, changes):
    assert (tiny(**changes)(*inputs) - tiny()(*inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("latent", [LatentSpec(24, 3, (4, 6)), LatentSpec(24, 3)])
def test_rotary_positions_see_only_where_tokens_are_to_each_other(latent):
    network = tiny(latent=latent, patch_size=1)
    network.positions.zero_()
    x, y = torch.randn(1, 24, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([2])
    with torch.no_grad():
        ordered, swapped = network(x, torch.tensor([0.5]), y), network(x.flip(1), torch.tensor([0.5]), y).flip(1)
    assert (ordered - swapped).abs().max() > 1e-3  # the order matters, although there is no position table
    cos, sin = network.cos[0], network.sin[0]
    turned = torch.complex(cos, sin)
    apart = turned[1:] * turned[:-1].conj()  # of neighbors: the same wherever they are
    along_a_row = apart if latent.grid is None else apart[[i for i in range(23) if (i + 1) % 6]]
    torch.testing.assert_close(along_a_row, along_a_row[:1].expand_as(along_a_row), rtol=0, atol=1e-5)


def test_tables_are_computed_and_not_kept():
    assert not {"positions", "cos", "sin"} & tiny().state_dict().keys()


def test_what_cannot_be_is_refused():
    for changes, message in (
        ({"patch_size": 3}, r"Choose one of \[1, 2\]"),
        ({"num_heads": 8}, "Choose another num_heads"),
        ({"rope_theta": 0.0}, "must be positive, got 0"),
        ({"norm": "batch"}, "Choose layer or rms"),
        ({"feedforward": "relu"}, "Choose gelu or swiglu"),
        ({"class_std": -0.1}, "class_std must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**changes)
