"""DiT^DH: the sizes of the paper, its start, and how the encoder modulates the head, token by token."""

import pytest
import torch

from ldbench.backbones.ditdh import DiTDH
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.latent import LatentSpec

RAE = LatentSpec(256, 768, (16, 16))
COUNTS = {"xl_1": (838_675_796, 838_380_628), "s_1": (196_455_764, 196_357_204)}  # all with tables, those that learn


def meta(size: str) -> DiTDH:
    """A size of the paper without memory."""
    node = Registry().compose(None, ["+backbone=ditdh", f"+size=ditdh_{size}"]).generator.backbone
    with torch.device("meta"):
        return instantiate(node, latent=RAE, num_classes=1000, has_null_class=True, learned_variance=False)


@pytest.mark.parametrize("size", COUNTS)
def test_sizes_have_the_official_counts(size):
    network = meta(size)
    learned = sum(p.numel() for p in network.parameters())
    assert (learned + network.positions.numel() + network.time.frequencies.numel(), learned) == COUNTS[size]


def tiny(*, at_start: bool = False, **changes) -> DiTDH:
    """A small one, away from its start, at which the output is zero."""
    torch.manual_seed(0)
    given = {
        **{"latent": LatentSpec(24, 3, (4, 6)), "num_classes": 5, "has_null_class": True, "learned_variance": False},
        **{"patch_size": 1, "width": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 3.0, "class_std": 0.02},
        **{"head_width": 24, "head_depth": 2, "head_num_heads": 3, "checkpointing": False},
        **{"norm": "rms", "feedforward": "swiglu", "rope_theta": 10000.0, "qk_norm": False, "shifts": True},
    }
    network = DiTDH(**{**given, **changes})
    for parameter in () if at_start else network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network


@pytest.fixture
def inputs():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, 24, 3, generator=rng), torch.tensor([0.2, 0.7]), torch.tensor([1, 5])


def test_it_starts_at_zero(inputs):
    assert not tiny(at_start=True)(*inputs).any()


def test_the_encoders_output_for_a_token_modulates_that_token_alone(inputs):
    network = tiny(head_depth=1, rope_theta=None)
    for block in network.head.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)  # without attention in the head, tokens do not meet
        torch.nn.init.zeros_(block.attn.proj.bias)
    seen = []
    network.head_condition.register_forward_hook(lambda layer, given, out: seen.append(out))
    network(*inputs)
    x, condition = network.head_embed(inputs[0]), seen[0].detach()
    changed = condition.clone()
    changed[:, 7] += 1.0
    with torch.no_grad():
        difference = (network.head(x, condition) - network.head(x, changed)).abs().amax(dim=(0, 2))
    assert difference[7] > 1e-3
    assert not difference[torch.arange(24) != 7].any()


def test_the_head_sees_the_latent_without_sinusoids_and_the_encoder_sees_them(inputs):
    network = tiny(rope_theta=None)
    x, t, y = inputs
    with torch.no_grad():
        ordered, swapped = network(x, t, y), network(x.flip(1), t, y).flip(1)
        assert (ordered - swapped).abs().max() > 1e-3
        network.positions.zero_()
        torch.testing.assert_close(network(x, t, y), network(x.flip(1), t, y).flip(1), rtol=1e-4, atol=1e-4)


def test_equal_widths_need_no_projection():
    network = tiny(head_width=16, head_num_heads=4)
    assert not any(key.startswith("head_condition") for key in network.state_dict())


@pytest.mark.parametrize(
    "changes",
    [{"norm": "layer"}, {"feedforward": "gelu"}, {"rope_theta": None}, {"qk_norm": True}, {"shifts": False}],
    ids=str,
)
def test_every_switch_changes_the_numbers(inputs, changes):
    assert (tiny(**changes)(*inputs) - tiny()(*inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("latent", [LatentSpec(24, 3), LatentSpec(24, 3, (4, 6))])
def test_sequences_and_maps_and_patches_are_taken(latent, inputs):
    assert tiny(latent=latent, patch_size=2)(*inputs).shape == (2, 24, 3)


def test_frequencies_of_time_are_kept_and_never_trained():
    network = tiny()
    assert "time.frequencies" in network.state_dict()
    assert "time.frequencies" not in dict(network.named_parameters())
    assert network.time.frequencies.std().item() == pytest.approx(1, abs=0.2)


def test_what_cannot_be_is_refused():
    for changes, message in (
        ({"head_width": 0}, "head_width must be positive, got 0"),
        ({"head_depth": 0}, "head_depth must be positive"),
        ({"head_num_heads": 5}, "num_heads 5 does not divide width 24"),
        ({"patch_size": 3}, r"Choose one of \[1, 2\]"),
        ({"class_std": -0.1}, "class_std must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**changes)
