"""Smoothness: how gently the decoded image changes when its latent does.

[0] Lee et al., Latent Diffusion Models with Masked AutoEncoders (LDMAE), 2025, https://arxiv.org/abs/2507.09984
"""

from torch import Tensor


def perturb(
    mean: Tensor,  # (B, N, C)
    *,
    eps: float,
    noise: Tensor,  # (B, N, C), standard normal
    sigma: Tensor,  # (C,): the standard deviation of each channel over the data set
) -> Tensor:  # (B, N, C)
    """Latents moved by `eps` standard deviations of their channel: mean + eps * noise * sigma, LDMAE's perturbation [0]."""
    return mean + eps * noise * sigma
