"""Adaptive weights of loss terms by their gradients at an anchor; each term's image gradient is computed once.

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
    """The parameter at which the gradient of a balanced term is compared with that of the reconstruction terms."""

    anchor: nn.Parameter
    largest: float  # the upper bound of the adaptive factor


@dataclass(frozen=True)
class WeightedLoss:
    """The loss of a batch, and the weight of each term in it."""

    value: Tensor  # (), without gradients
    backward_loss: Tensor  # (), with the gradients of the loss; its value may differ
    weights: Mapping[str, float | Tensor]


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> WeightedLoss:
    """The weighted sum of terms without adaptive weights."""
    total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
    return WeightedLoss(total.detach(), total, weights)


def balanced_sum(
    terms: Mapping[str, Tensor],  # scalars; those in `leaves` were measured on `leaves[name]`, the others on `recon`
    weights: Mapping[str, float],
    *,
    recon: Reconstruction,
    leaves: Mapping[str, Reconstruction],  # of terms that depend on the image alone, see `detach_to_leaves`
    reconstructing: frozenset[str],
    balanced: Mapping[str, BalanceAnchor],
    adaptive: Adaptive,
) -> WeightedLoss:
    """The weighted sum of terms; the weight of a balanced term is multiplied by an adaptive factor (eq. 7 of [0]).

    The factor is |gradient of the reconstruction terms| / (|its own gradient| + 1e-4) at the anchor. `adaptive`:
    `global` compares gradients of the whole batch, `local` those of each process's own images, as the official scripts
    do. A term on leaves has one image gradient, which serves the comparison and the step. Raises ValueError where its
    gradient reaches the latent without the image, and where no reconstruction term is active.
    """
    if not reconstructing & terms.keys():
        raise ValueError(
            f"The terms {', '.join(balanced)} are balanced against those that reconstruct, "
            "and none of these is active at this batch."
        )
    scale = 2.0 ** int(math.log2(recon.images.numel()))  # a mean over pixels has gradients too small for half precision
    gradients = {  # (B, 3, H, W), times scale
        name: image_gradient(terms[name], leaf, name=name, scale=scale) for name, leaf in leaves.items()
    }

    def gradient(names: frozenset[str], anchor: nn.Parameter, by: Mapping[str, float]) -> Tensor:
        """The gradient of a weighted sum of terms at an anchor."""
        parts = []
        if names & gradients.keys():
            direction = torch.stack([by[name] * gradients[name] for name in gradients if name in names]).sum(dim=0)
            direction = direction.to(recon.images.dtype)
            (at_anchor,) = torch.autograd.grad(recon.images, anchor, direction, retain_graph=True)
            parts.append(at_anchor.float() / scale)
        for name in terms:  # in their order: sums repeat to the last bit
            if name in names and name not in gradients:
                parts.append(by[name] * torch.autograd.grad(terms[name], anchor, retain_graph=True)[0].float())
        whole = torch.stack(parts).sum(dim=0)
        return mean_over_ranks(whole) if adaptive == "global" else whole

    adapted: dict[str, float | Tensor] = dict(weights)
    references: dict[int, Tensor] = {}  # by anchor
    for name, position in balanced.items():
        key = id(position.anchor)
        if key not in references:
            with phase(f"reconstruction at the anchor of {name}"):
                references[key] = gradient(reconstructing & terms.keys(), position.anchor, weights).norm()
        with phase(f"{name} at its anchor"):
            own = gradient(frozenset([name]), position.anchor, {name: 1.0}).norm()
        adapted[name] = weights[name] * (references[key] / (own + 1e-4)).clamp(max=position.largest)
    value = torch.stack([adapted[name] * term.detach() for name, term in terms.items()]).sum()
    addends = [adapted[name] * term for name, term in terms.items() if name not in gradients]
    if gradients:
        direction = torch.stack([adapted[name] * (gradients[name] / scale) for name in gradients]).sum(dim=0)
        addends.append((recon.images.float() * direction).sum())
    return WeightedLoss(value, torch.stack(addends).sum(), adapted)


def detach_to_leaves(recon: Reconstruction) -> Reconstruction:
    """The same pass, detached from the network: gradients stop at its tensors."""
    leaf = lambda x: None if x is None else x.detach().requires_grad_()  # noqa: E731
    posterior = Posterior(leaf(recon.posterior.mean), leaf(recon.posterior.logvar))
    return replace(recon, images=leaf(recon.images.float()), z=leaf(recon.z), posterior=posterior)


def image_gradient(term: Tensor, leaves: Reconstruction, *, name: str, scale: float) -> Tensor:  # (B, 3, H, W)
    """The gradient of a term by the image, times `scale`."""
    others = [x for x in (leaves.z, leaves.posterior.mean, leaves.posterior.logvar) if x is not None]
    with phase(f"gradient of {name} by the image"):
        by_image, *by_others = torch.autograd.grad(scale * term, [leaves.images, *others], allow_unused=True)
    if by_image is None or any(gradient is not None for gradient in by_others):
        raise ValueError(
            f"Loss {name} declares that it depends on the reconstructed image alone, but it has other gradients. "
            "Remove its `reconstructs`."
        )
    return by_image
