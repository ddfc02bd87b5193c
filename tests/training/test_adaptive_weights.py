"""Adaptive weights: the sum and its gradients follow the definition, with one backward pass for each term."""

import pytest
import torch
from torch import nn

from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction
from ldbench.training.adaptive_weights import BalanceAnchor, balanced_sum, detach_to_leaves, weighted_sum

WEIGHTS = {"pixels": 1.0, "sharp": 0.3, "gan": 0.5, "pull": 0.1, "size": 0.01}
PASSED: list[str] = []  # the terms that a backward pass went through


class Told(torch.autograd.Function):
    """The identity, which counts every backward pass through it."""

    @staticmethod
    def forward(ctx, x, name):
        ctx.name = name
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        PASSED.append(ctx.name)
        return gradient, None


@pytest.fixture
def network():
    torch.manual_seed(0)
    PASSED.clear()
    return nn.ModuleDict({"encoder": nn.Linear(12, 6), "decoder": nn.Linear(6, 12)})


IMAGES = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def passed(network) -> Reconstruction:
    z = network["encoder"](IMAGES.flatten(1)).reshape(2, 2, 3)
    return Reconstruction(images=network["decoder"](z.flatten(1)).reshape(IMAGES.shape), z=z, posterior=Posterior(z))


def measured(name: str, recon: Reconstruction) -> torch.Tensor:
    image = Told.apply(recon.images, name)
    return {
        "pixels": lambda: (image - IMAGES).abs().mean(),
        "sharp": lambda: (image[..., 1:] - image[..., :-1] - 1).square().mean(),
        "gan": lambda: -image.cos().mean(),
        "pull": lambda: Told.apply(recon.z, name).sin().mean(),
        "size": lambda: recon.z.square().mean(),
    }[name]()


def adaptive_loss(network, **largest):
    recon = passed(network)
    leaves = {name: detach_to_leaves(recon) for name in ("pixels", "sharp", "gan")}
    terms = {name: measured(name, leaves.get(name, recon)) for name in WEIGHTS}
    places = {
        "gan": BalanceAnchor(network["decoder"].weight, largest.get("gan", 1e4)),
        "pull": BalanceAnchor(network["encoder"].weight, largest.get("pull", 1e8)),
    }
    return balanced_sum(
        terms,
        WEIGHTS,
        recon=recon,
        leaves=leaves,
        reconstructing=frozenset(("pixels", "sharp")),
        balanced=places,
        adaptive="global",
    )


def defined(network) -> tuple[dict, torch.Tensor]:
    """Weights and loss by eq. 7, with one gradient for each."""
    recon = passed(network)
    terms = {name: measured(name, recon) for name in WEIGHTS}
    reference = WEIGHTS["pixels"] * terms["pixels"] + WEIGHTS["sharp"] * terms["sharp"]
    weights = dict(WEIGHTS)
    for name, anchor in (("gan", network["decoder"].weight), ("pull", network["encoder"].weight)):
        ours, theirs = (torch.autograd.grad(x, anchor, retain_graph=True)[0].norm() for x in (reference, terms[name]))
        weights[name] = WEIGHTS[name] * (ours / (theirs + 1e-4)).item()
    return weights, sum(weights[name] * term for name, term in terms.items())


def gradients(network, loss) -> list[torch.Tensor]:
    network.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in network.parameters()]


def test_weights_value_and_gradients_are_those_of_the_definition(network):
    weights, loss = defined(network)
    loss_of_batch = adaptive_loss(network)
    assert {name: float(weight) for name, weight in loss_of_batch.weights.items()} == pytest.approx(weights, rel=1e-5)
    assert loss_of_batch.value.item() == pytest.approx(loss.item(), rel=1e-5)
    assert not loss_of_batch.value.requires_grad
    for ours, theirs in zip(gradients(network, loss_of_batch.backward_loss), gradients(network, loss), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_a_term_that_sees_the_image_alone_is_passed_backwards_once(network):
    adaptive_loss(network).backward_loss.backward()
    # the latent's own: at the anchor, and in the step
    assert sorted(PASSED) == ["gan", "pixels", "pull", "pull", "sharp"]
    PASSED.clear()
    defined(network)[1].backward()
    assert sorted(PASSED) == ["gan"] * 2 + ["pixels"] * 3 + ["pull"] * 2 + ["sharp"] * 3


def test_a_balance_goes_no_further_than_its_largest(network):
    loss_of_batch = adaptive_loss(network, gan=0.01, pull=0.02).weights
    assert float(loss_of_batch["gan"]) == pytest.approx(0.5 * 0.01)
    assert float(loss_of_batch["pull"]) == pytest.approx(0.1 * 0.02)


def test_terms_without_a_balance_are_summed_by_weight(network):
    recon = passed(network)
    terms = {name: measured(name, recon) for name in WEIGHTS}
    loss_of_batch = weighted_sum(terms, WEIGHTS)
    assert loss_of_batch.value.item() == pytest.approx(
        sum(WEIGHTS[name] * term.item() for name, term in terms.items()), rel=1e-6
    )
    assert loss_of_batch.backward_loss.requires_grad


def test_a_declared_dependence_on_the_image_alone_is_checked_by_gradients(network):
    recon = passed(network)
    leaves = {"pixels": detach_to_leaves(recon)}
    terms = {"pixels": leaves["pixels"].images.mean() + leaves["pixels"].z.mean(), "pull": recon.z.mean()}
    place = {"pull": BalanceAnchor(network["encoder"].weight, 1.0)}
    with pytest.raises(ValueError, match="Remove its `reconstructs`"):
        balanced_sum(
            terms,
            WEIGHTS,
            recon=recon,
            leaves=leaves,
            reconstructing=frozenset(("pixels",)),
            balanced=place,
            adaptive="global",
        )
    with pytest.raises(ValueError, match="none of these is active"):
        balanced_sum(
            {"pull": recon.z.mean()},
            WEIGHTS,
            recon=recon,
            leaves={},
            reconstructing=frozenset(("pixels",)),
            balanced=place,
            adaptive="global",
        )
