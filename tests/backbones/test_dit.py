"""DiT: the sizes of the papers, and latents it cannot take."""

import pytest
import torch

from ldbench.backbones.dit import DiT
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.latent import LatentSpec

COUNTS = {  # of the official networks on 32 x 32 x 4 latents, with fixed positions
    **{
        "s_2": 32_963_360,
        "s_4": 32_945_024,
        "s_8": 33_148_160,
        "b_2": 130_512_416,
        "b_4": 130_475_648,
        "b_8": 130_881_536,
    },
    **{
        "l_2": 458_102_816,
        "l_4": 458_053_760,
        "l_8": 458_594_816,
        "xl_2": 675_129_632,
        "xl_4": 675_074_432,
        "xl_8": 675_683_072,
    },
}
IMAGENET = {"num_classes": 1000, "has_null_class": True}


def meta(size: str, **facts) -> DiT:
    """A size of the papers without memory."""
    node = Registry().compose(None, ["+backbone=dit", f"+size=dit_{size}"]).generator.backbone
    with torch.device("meta"):
        return instantiate(node, **IMAGENET, **facts)


def count(dit: DiT) -> int:
    return sum(p.numel() for p in dit.parameters()) + dit.positions.numel()


@pytest.mark.parametrize("size", COUNTS)
def test_sizes_have_the_official_counts(size):
    assert count(meta(size, latent=LatentSpec(1024, 4, (32, 32)), learned_variance=True)) == COUNTS[size]


@pytest.mark.parametrize(
    ("latent", "learned_variance", "size", "expected"),
    [
        (LatentSpec(4096, 4, (64, 64)), True, "xl_2", 676_014_368),
        (LatentSpec(1024, 4, (32, 32)), False, "xl_2", 675_111_184),
        (LatentSpec(128, 32), False, "b_1", 130_426_400),
        (LatentSpec(128, 32), False, "l_1", 457_988_128),
        (LatentSpec(128, 32), False, "xl_1", 675_000_608),
        (LatentSpec(128, 32), True, "xl_1", 675_037_504),
    ],
)
def test_other_latents_have_the_official_counts_too(latent, learned_variance, size, expected):
    assert count(meta(size, latent=latent, learned_variance=learned_variance)) == expected


def tiny(**changes) -> DiT:
    torch.manual_seed(0)
    given = {
        "latent": LatentSpec(24, 3, (4, 6)),
        "num_classes": 5,
        "has_null_class": True,
        "learned_variance": False,
        "patch_size": 2,
    }
    shape = {
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "qk_norm": False,
        "class_std": 0.02,
        "checkpointing": False,
    }
    return DiT(**{**given, **shape, **changes})


def test_an_index_is_a_time_like_any_number():
    dit = tiny()
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, y = torch.randn(2, 24, 3), torch.tensor([0, 5])
    assert torch.equal(dit(x, torch.tensor([3, 999]), y), dit(x, torch.tensor([3.0, 999.0]), y))


def test_tables_are_computed_and_not_kept():
    assert "positions" not in tiny().state_dict()
    assert not tiny().positions.requires_grad


def test_what_cannot_be_is_refused():
    for changes, message in (
        ({"patch_size": 4}, r"patch_size 4 does not divide the latent grid 4x6. Choose one of \[1, 2\]"),
        ({"width": 18}, "width divisible by 4, got 18"),
        ({"depth": 0}, "depth must be positive"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**changes)
