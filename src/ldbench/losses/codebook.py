"""Terms for codebooks: the entropy of their use, and the pull between vectors and their nearest codes.

[0] Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, 2024, https://arxiv.org/abs/2412.10958
[1] van den Oord et al., Neural Discrete Representation Learning, 2017, https://arxiv.org/abs/1711.00937
"""

from typing import ClassVar

from torch import Tensor

from ldbench.core.distributed import rank_info, sum_over_ranks
from ldbench.core.tokenizer import Quantization, Reconstruction
from ldbench.losses.base_term import BaseTerm


class CodeEntropy(BaseTerm):
    """The mean entropy of each token's distribution over the codes, minus the entropy of their mean, in nats [0].

    It is low where each token chooses, and all codes are chosen. The mean is over all tokens, images and processes.
    `temperature` of these distributions is its own (official 0.01), `epsilon` is added in the logarithm of the mean
    (official 1e-6 for mixtures, 1e-5 for nearest codes). Raises ValueError unless both are above zero.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, weight: float, start: int, warmup: int, temperature: float, epsilon: float):
        super().__init__(weight=weight, start=start, warmup=warmup)
        for name, value in (("temperature", temperature), ("epsilon", epsilon)):
            if value <= 0:
                raise ValueError(f"{name} must be above zero, got {value}.")
        self.temperature = temperature
        self.epsilon = epsilon

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The term of a batch."""
        logits = quantization_of(recon).logits.float().flatten(0, 1) / self.temperature  # (B * N, K)
        q = logits.softmax(dim=-1)
        each = -(q * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
        world = rank_info().world
        mean = sum_over_ranks(q.mean(dim=0)) / world  # batches of all processes are of one size
        return each + (mean * (mean + self.epsilon).log()).sum()


class CodebookLoss(BaseTerm):
    """The squared distance of the nearest codes to the vectors, plus `commitment` times the same distance.

    The first teaches the codes, the second the encoder [1]; both are means over tokens, channels and images. Raises
    ValueError for a negative commitment.
    """

    revision: ClassVar[int] = 1

    def __init__(self, *, weight: float, start: int, warmup: int, commitment: float):
        super().__init__(weight=weight, start=start, warmup=warmup)
        if commitment < 0:
            raise ValueError(f"commitment must not be negative, got {commitment}.")
        self.commitment = commitment

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W)
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of a batch. Raises ValueError for latents that are no nearest codes."""
        found = quantization_of(recon)
        if found.vectors is None or found.chosen is None:
            raise ValueError(
                "The codebook loss is of nearest codes, and these latents are mixtures of codes. "
                "Leave it out, or set tokenizer.model.latent_head=vq."
            )
        codes = (found.chosen - found.vectors.detach()).float().square().mean()
        return codes + self.commitment * (found.chosen.detach() - found.vectors).float().square().mean()


def quantization_of(recon: Reconstruction) -> Quantization:
    """What the codebook made of a batch. Raises ValueError for a tokenizer without one."""
    if recon.quantization is None:
        raise ValueError(
            "This loss term is of tokenizers with a codebook. Leave it out, or choose tokenizer=softvq or tokenizer=vq."
        )
    return recon.quantization
