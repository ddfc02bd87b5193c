"""Loss terms weighed against each other by gradients at an anchor; each term's gradient by the image is computed once.

[0] Esser et al., Taming Transformers, 2021, https://arxiv.org/abs/2012.09841 (eq. 7)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ldbench.core.distributed import mean_over_ranks
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction
from ldbench.training.timing import phase

Adaptive = Literal["global", "local"]


@dataclass(frozen=True)
class BalanceAnchor:
    """Where the gradient of a balanced term is compared with that of the reconstruction, and how far it may be lifted."""

    anchor: nn.Parameter
    largest: float


@dataclass(frozen=True)
class WeightedLoss:
    """The loss of a batch: its value, a scalar with its gradients, and the weight of each term in it."""

    value: Tensor  # (), without gradients
    pulling: Tensor  # (), whose backward pass is the loss's
    weights: Mapping[str, float | Tensor]


def plain(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> WeightedLoss:
    """The weighted sum of terms of which none is balanced."""
    total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
    return WeightedLoss(total.detach(), total, weights)


def balance(
    terms: Mapping[str, Tensor],  # scalars; those in `leaves` were measured on `leaves[name]`, the others on `recon`
    weights: Mapping[str, float],
    *,
    recon: Reconstruction,
    leaves: Mapping[str, Reconstruction],  # of terms that see the image alone, see `detach_to_leaves`
    reconstructing: frozenset[str],
    balanced: Mapping[str, BalanceAnchor],
    adaptive: Adaptive,
) -> WeightedLoss:
    """The weighted sum of terms; a balanced one counts |gradient of the reconstruction terms| / (|its own| + 1e-4) times more (eq. 7 of [0]).

    `adaptive`: `global` compares gradients of the whole batch, `local` those of each process's own images, as the official scripts do.
    Terms on leaves pull at the image by one gradient each, which serves the comparison and the step. Raises ValueError where the gradient of one
    reaches the latent past the image, and where no reconstruction term counts.
    """
    if not reconstructing & terms.keys():
        raise ValueError(
            f"The terms {', '.join(balanced)} are balanced against those that reconstruct, and none of these counts at this batch."
        )
    lift = 2.0 ** int(math.log2(recon.images.numel()))  # a mean over pixels has gradients too small for half precision
    gradients = {
        name: image_gradient(terms[name], leaf, name=name, lift=lift) for name, leaf in leaves.items()
    }  # (B, 3, H, W), times lift

    def gradient(names: frozenset[str], anchor: nn.Parameter, by: Mapping[str, float]) -> Tensor:
        """That of a sum of terms at an anchor."""
        parts = []
        if names & gradients.keys():
            direction = torch.stack([by[name] * gradients[name] for name in gradients if name in names]).sum(dim=0)
            parts.append(
                torch.autograd.grad(recon.images, anchor, direction.to(recon.images.dtype), retain_graph=True)[
                    0
                ].float()
                / lift
            )
        for name in (
            name for name in terms if name in names and name not in gradients
        ):  # in their order: sums repeat to the last bit
            parts.append(by[name] * torch.autograd.grad(terms[name], anchor, retain_graph=True)[0].float())
        whole = torch.stack(parts).sum(dim=0)
        return mean_over_ranks(whole) if adaptive == "global" else whole

    lifted: dict[str, float | Tensor] = dict(weights)
    references: dict[int, Tensor] = {}  # by anchor
    for name, place in balanced.items():
        key = id(place.anchor)
        if key not in references:
            with phase(f"reconstruction at the anchor of {name}"):
                references[key] = gradient(reconstructing & terms.keys(), place.anchor, weights).norm()
        with phase(f"{name} at its anchor"):
            own = gradient(frozenset([name]), place.anchor, {name: 1.0}).norm()
        lifted[name] = weights[name] * (references[key] / (own + 1e-4)).clamp(max=place.largest)
    value = torch.stack([lifted[name] * term.detach() for name, term in terms.items()]).sum()
    pulls = [lifted[name] * term for name, term in terms.items() if name not in gradients]
    if gradients:
        direction = torch.stack([lifted[name] * (gradients[name] / lift) for name in gradients]).sum(dim=0)
        pulls.append((recon.images.float() * direction).sum())
    return WeightedLoss(value, torch.stack(pulls).sum(), lifted)


def detach_to_leaves(recon: Reconstruction) -> Reconstruction:
    """The same pass, cut off from the network that made it: gradients stop at its tensors."""
    leaf = lambda x: None if x is None else x.detach().requires_grad_()  # noqa: E731
    posterior = Posterior(leaf(recon.posterior.mean), leaf(recon.posterior.logvar))
    return replace(recon, images=leaf(recon.images.float()), z=leaf(recon.z), posterior=posterior)


def image_gradient(term: Tensor, leaves: Reconstruction, *, name: str, lift: float) -> Tensor:  # (B, 3, H, W)
    """The gradient of a term by the image, times `lift`."""
    others = [x for x in (leaves.z, leaves.posterior.mean, leaves.posterior.logvar) if x is not None]
    with phase(f"gradient of {name} by the image"):
        by_image, *by_others = torch.autograd.grad(lift * term, [leaves.images, *others], allow_unused=True)
    if by_image is None or any(gradient is not None for gradient in by_others):
        raise ValueError(
            f"Loss {name} says that it measures the reconstructed image, but its gradient goes elsewhere. Drop its `reconstructs`."
        )
    return by_image
