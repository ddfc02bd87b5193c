"""Every loss term, teacher, discriminator and law of masks gives what trainings ask of it."""

import pytest
import timm
import torch
from omegaconf import OmegaConf
from tests.contracts.untrained import option, untrained
from torch import nn

from ldbench.config.components import instantiate, parameter_names
from ldbench.config.compose import Registry
from ldbench.core.interfaces import LossTerm, Predictor, is_adversary
from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Quantization, Reconstruction


class ColorTeacher:
    """A teacher of mean colors, and the trunk of a discriminator."""

    revision = 1

    def channels(self, image_size, grid):
        return 3

    def __call__(self, images, grid):
        return nn.functional.adaptive_avg_pool2d(images, grid).flatten(2).transpose(1, 2)

    def readouts(self, images, depths):
        return [images.flatten(2)[..., :9] for _ in range(1 + len(depths))]

    def maps(self, images):
        return nn.functional.avg_pool2d(images, 2)

    def parameters(self):
        return iter(())


SMALLER = {  # what images of 8 px need
    "adversarial": {"discriminator": {"num_layers": 1, "width": 4}},
    "adversarial_dino": {"discriminator": {"width": 3, "depths": [1], "input_size": 8}},
}

JOB_INPUTS = {"latent": LatentSpec(4, 3, (2, 2)), "patch_grid": (2, 2), "image_size": 8, "num_classes": 5}


WITHOUT_GRID = {"alignment_repeat": {"latent": LatentSpec(4, 3)}}  # terms of latents that have none


def loss_term(name: str) -> nn.Module:
    node = OmegaConf.to_container(OmegaConf.merge(option("loss", name), SMALLER.get(name, {})), resolve=True)
    for owner in (node, node.get("discriminator", {})):
        if "teacher" in owner:
            owner["teacher"] = ColorTeacher()
    inputs = JOB_INPUTS | WITHOUT_GRID.get(name, {})
    return instantiate(node, **{fact: inputs[fact] for fact in inputs.keys() & set(parameter_names(node["_target_"]))})


@pytest.mark.parametrize("name", sorted(name for name in Registry().options("loss") if not name.startswith("lpips")))
def test_a_loss_term_is_one_finite_number_that_its_reconstruction_can_lower(name: str) -> None:
    torch.manual_seed(0)
    term = loss_term(name)
    assert isinstance(term, LossTerm)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    mean, logvar, recon = (torch.randn(shape, requires_grad=True) for shape in ((2, 4, 3), (2, 4, 3), (2, 3, 8, 8)))
    for module in term.modules():
        if hasattr(module, "modulation"):
            nn.init.normal_(module.modulation.weight)  # hidden latents get no gradient at the first step
    codes = Quantization(latents=mean, logits=mean, vectors=mean, chosen=mean.detach().roll(1, 0))
    passed = Reconstruction(images=recon, z=mean, posterior=Posterior(mean, logvar), quantization=codes)
    value = term(images, passed, torch.zeros(2, dtype=torch.long))
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in (mean, logvar, recon))
    if is_adversary(term):
        detached = Reconstruction(images=recon.detach(), z=mean.detach(), posterior=Posterior(mean.detach()))
        theirs = term.discriminate(images, detached)
        theirs.backward()
        assert torch.isfinite(theirs)
    if isinstance(term, Predictor):
        targets = term.targets(images, torch.zeros(2, dtype=torch.long))
        assert (
            term.errors(term.predict(passed), targets).shape
            == term.errors(term.constant(targets).expand_as(term.predict(passed)), targets).shape
        )


def teacher_of(name: str) -> nn.Module:
    """A teacher on random weights of its true shape."""
    node = option("teacher", name)
    if "network" in node:
        return untrained("teacher", name)
    if "weights" not in node:
        return instantiate(node)
    torch.manual_seed(0)
    return instantiate({**node, "weights": timm.create_model(node.architecture, pretrained=False).state_dict()})


LARGE = ("dinov2", "siglip", "clip", "mae")  # hundreds of millions of weights

TEACHERS = [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
    for name in sorted(Registry().options("teacher"))
]


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_gives_its_channels_at_every_place_whatever_the_grid_and_is_frozen(name: str) -> None:
    teacher = teacher_of(name).train()
    assert teacher.revision >= 1
    assert not any(p.requires_grad for p in teacher.parameters())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for grid in ((4, 4), (2, 4)):
        features = teacher(images.requires_grad_(), grid)
        assert features.shape == (2, grid[0] * grid[1], teacher.channels(64, grid))
        assert features.dtype == torch.float32
        assert not features.requires_grad
        assert torch.isfinite(features).all()
        torch.testing.assert_close(teacher(images[:1], grid), features[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(Registry().options("discriminator")))
def test_a_discriminator_gives_logits_that_its_images_and_weights_can_move(name: str) -> None:
    node = OmegaConf.to_container(Registry().option("discriminator", name))
    if "teacher" in node:
        node |= {"teacher": ColorTeacher(), "width": 3, "depths": [1], "input_size": 32}
    torch.manual_seed(0)
    discriminator = instantiate(node)
    images = (torch.rand(2, 3, 32, 32) * 2 - 1).requires_grad_()
    logits = discriminator(images)
    assert len(logits) == 2
    logits.square().mean().backward()
    assert images.grad.abs().sum() > 0
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in discriminator.parameters())


@pytest.mark.parametrize("name", sorted(Registry().options("mask")))
def test_a_law_of_masks_draws_shares(name: str) -> None:
    node = Registry().option("mask", name)
    law = instantiate(OmegaConf.merge(node, {"steps": 10} if OmegaConf.missing_keys(node) else {}))
    for step in (0, 5, 100):
        ratio = torch.as_tensor(law.draw(step, 3))
        assert ratio.shape in ((), (3,))
        assert ((ratio >= 0) & (ratio <= 1)).all()
