"""The head after an inner block: its loss, its guidance, and one pass for both."""

import copy

import pytest
import torch

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.backbone import Backbone
from ldbench.core.generator import Generator
from ldbench.core.interpolants import Linear
from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.objectives.flow_matching import FlowMatching
from ldbench.objectives.mean_flow import MeanFlow
from ldbench.objectives.times import Uniform
from ldbench.sampling.guidance import InternalGuidance, Unguided
from ldbench.sampling.ode import FixedGrid

LATENT = LatentSpec(16, 3, (4, 4))
BACKBONES = ("dit", "lightningdit", "ditdh")
Z = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 3])
T = torch.tensor([0.1, 0.4, 0.6, 0.95])
NOISE = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(2))
EULER = FixedGrid(rule="euler", num_steps=4, shift=1.0, margin=1e-3, last_step="none", dtype="float32")


def backbone(name: str, **changes) -> Backbone:
    torch.manual_seed(0)
    node = Registry().compose(None, [f"+backbone={name}"]).generator.backbone
    facts = {"latent": LATENT, "num_classes": 5, "has_null_class": True, "learned_variance": False}
    made = instantiate({**node, "width": 24, "num_heads": 2, **changes}, **facts)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def generator(name: str, objective=None, **changes) -> Generator:
    settings = {"prediction": "velocity", "weighting": "none", "cosine_weight": 1.0, "network_time": "data_at_one"}
    flow = FlowMatching(interpolant=Linear(), times=Uniform(), margin=1e-3, **settings)
    return Generator(
        backbone=backbone(name, **changes), objective=objective or flow, normaliser=Normalizer(3), class_dropout=0.1
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_without_one_nothing_is_built_and_with_one_the_output_stays(name):
    plain, headed = backbone(name), backbone(name, inner_block=2)
    assert not [key for key in plain.state_dict() if "inner_head" in key]
    headed.load_state_dict(plain.state_dict(), strict=False)
    out, inner = headed.forward_with_inner(Z, T, Y)
    assert torch.equal(out, plain(Z, T, Y))
    assert torch.equal(headed(Z, T, Y), out)
    assert inner.shape == out.shape
    assert (inner - out).abs().max() > 1e-2
    with pytest.raises(ValueError, match="has no head after an inner block"):
        plain.forward_with_inner(Z, T, Y)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_inner_head_does_not_depend_on_later_blocks(name):
    headed = backbone(name, inner_block=2)
    changed = copy.deepcopy(headed)
    blocks = changed.encoder if name == "ditdh" else changed.transformer.blocks
    torch.nn.init.normal_(blocks[2].attn.qkv.weight)
    (out, inner), (other, same) = (each.forward_with_inner(Z, T, Y) for each in (headed, changed))
    assert torch.equal(inner, same)
    assert not torch.equal(out, other)


@pytest.mark.parametrize("name", BACKBONES)
def test_both_heads_have_the_objectives_loss_at_the_same_times_and_noise(name):
    headed, plain = generator(name, inner_block=2), generator(name)
    plain.backbone.load_state_dict(
        {key: value for key, value in headed.backbone.state_dict().items() if "inner_head" not in key}
    )
    settings = {"step": 0, "t": T, "noise": NOISE, "dropped": torch.tensor([True, False, False, False])}
    both, outer = headed.loss(Z, Y, **settings), plain.loss(Z, Y, **settings)
    assert set(both) == {"velocity", "cosine", "inner_velocity", "inner_cosine"}
    for key, value in outer.items():
        torch.testing.assert_close(both[key], value)
    _, inner = headed.backbone.forward_with_inner(
        Linear().mix(NOISE, Z, T), T, torch.where(settings["dropped"], headed.backbone.null_class, Y)
    )
    error = (inner - (Z - NOISE)).square().mean(dim=(1, 2))
    torch.testing.assert_close(both["inner_velocity"], error)
    torch.manual_seed(3)
    drawn = headed.loss(Z, Y, step=0)
    torch.manual_seed(3)
    plainly = plain.loss(Z, Y, step=0)
    torch.testing.assert_close(drawn["velocity"], plainly["velocity"], msg="draws are those without an inner head")


def test_guidance_extrapolates_from_the_inner_head_inside_its_interval_by_one_call():
    headed = generator("dit", inner_block=2)
    field = headed.field()
    guided = InternalGuidance(scale=1.8, low=0.3, high=0.9)(field)
    with torch.no_grad():
        found = guided(Z, T, Y).value
        out, inner = headed.backbone.forward_with_inner(Z, T, Y)
    torch.testing.assert_close(found[1:3], (inner + 1.8 * (out - inner))[1:3])
    torch.testing.assert_close(found[[0, 3]], out[[0, 3]])
    assert (guided.calls, guided.items) == (1, 4)
    assert InternalGuidance(scale=1.0, low=0.0, high=1.0)(field) is field


def test_scale_one_samples_what_no_guidance_does_and_others_differ():
    headed = generator("dit", inner_block=2)
    plain, same, other = (
        headed.sample(NOISE, Y, EULER, guidance)
        for guidance in (Unguided(), *(InternalGuidance(scale=scale, low=0.0, high=1.0) for scale in (1.0, 2.0)))
    )
    assert torch.equal(plain, same)
    assert (plain - other).abs().max() > 1e-3


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"Train one with \+generator\.backbone\.inner_block=N"):
        InternalGuidance(scale=2.0, low=0.0, high=1.0)(generator("dit").field())
    for block in (0, 4):
        with pytest.raises(ValueError, match="inner_block must be 1 to 3, before the last of 4 blocks"):
            backbone("dit", inner_block=block)
    settings = {"equal": 0.75, "power": 1.0, "epsilon": 1e-3, "guidance_scale": 1.0, "mixing": 0.0}
    mean_flow = MeanFlow(interpolant=Linear(), times=Uniform(), network_time="data_at_one", **settings)
    with pytest.raises(ValueError, match="MeanFlow cannot train the head after an inner block"):
        generator("dit", mean_flow, inner_block=2)


def test_tokens_of_a_block_and_the_inner_head_are_read_in_one_pass():
    headed = backbone("dit", inner_block=2)
    with headed.keep_tokens({1, 3}) as kept:
        headed.forward_with_inner(Z, T, Y)
    assert set(kept) == {1, 3}
    assert kept[1].shape == (4, 16, 24)
    with headed.keep_tokens({1}):
        headed(Z, T, Y)
        with pytest.raises(ValueError, match="were kept by two passes"):
            headed(Z, T, Y)
    assert headed.after_block is None
