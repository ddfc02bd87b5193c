"""Matrix-free Jacobians: the largest singular value of a function's Jacobian at a point, and its Frobenius norm.

[0] Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018, https://arxiv.org/abs/1802.05957
    (power iteration)
[1] Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix, 1989,
    https://doi.org/10.1080/03610918908812806
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

Function = Callable[[Tensor], Tensor]  # (B, ...) -> (B, ...), item by item
ADJOINT = 0.05  # relative difference of |J v|^2 and v' J' J v, beyond which one of two derivatives is wrong


@dataclass(frozen=True)
class Stretch:
    """How much a function stretches small changes of its argument, by item; (B,) float64."""

    largest: Tensor  # largest singular value of the Jacobian, the local Lipschitz constant; a lower bound
    change: Tensor  # relative change of `largest` in the last iteration, an indication of convergence
    total: Tensor  # Frobenius norm of the Jacobian; its square is estimated without bias


def stretch(
    function: Function,
    x: Tensor,  # (B, ...)
    *,
    start: Tensor,  # (B, ...) normal: the start of the power iteration
    probes: Sequence[Tensor],  # (B, ...) each, normal or +-1
    iterations: int,
) -> Stretch:
    """Power iteration on J'J [0] and the mean of |J v|^2 over random v, which is the trace of J'J [1].

    The function must treat the items of a batch independently. Attention runs unfused, since fused kernels have no
    forward derivative. Raises ValueError for fewer than two iterations or no probes, and where torch's forward and
    backward derivatives are not those of one function.
    """
    if iterations < 2 or not probes:
        raise ValueError(f"A stretch needs at least two iterations and one probe, got {iterations} and {len(probes)}.")
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # torch's own warning about its forward derivatives
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
        _, pullback = vjp(function, x)  # type: ignore[misc]
        v = normalize(start)
        largest = previous = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(iterations):
            forward = jvp(function, (x,), (v,))[1].detach()
            previous, largest = largest, norm(forward)
            gradient = pullback(forward)[0].detach()
            if not previous.any():  # in the first iteration, along random directions
                validate_adjoint(v, forward, gradient)
            v = normalize(gradient)
        squares = [norm(jvp(function, (x,), (probe,))[1].detach()).square() for probe in probes]
    change = torch.where(largest > 0, (largest - previous).abs() / largest, 0.0)
    return Stretch(largest=largest, change=change, total=torch.stack(squares).mean(dim=0).sqrt())


def validate_adjoint(
    v: Tensor,  # (B, ...)
    forward: Tensor,  # (B, ...): J v
    gradient: Tensor,  # (B, ...): J' J v
) -> None:
    """Raises ValueError unless |J v|^2 is v' J' J v, for all items together.

    torch's forward derivative of batch normalization in eval mode is permuted where views of its output follow.
    """
    squared, product = norm(forward).square().sum(), (v.double() * gradient.double()).sum()
    if (squared - product).abs() > ADJOINT * squared:
        raise ValueError(
            f"torch's forward and backward derivatives differ: |J v|^2 is {squared:.4g}, and v' J' J v {product:.4g}. "
            "Batch normalization before a flatten or a permutation does that: fold it into the convolution before it."
        )


def norm(x: Tensor) -> Tensor:  # (B, ...) -> (B,) float64
    """The Euclidean norm of each item."""
    return torch.linalg.vector_norm(x.double().flatten(1), dim=1)


def normalize(x: Tensor) -> Tensor:
    """Each item divided by its norm; zero stays zero."""
    length = norm(x).clamp_min(torch.finfo(torch.float64).tiny)
    return (x.double() / length.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)
