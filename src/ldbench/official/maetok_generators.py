"""The official generators of MAETok and SoftVQ-VAE: SiT and DiT on a sequence of latent tokens.

[0] Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models, 2025, https://arxiv.org/abs/2502.03444
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry, convert_transformer

if TYPE_CHECKING:
    from torch import Tensor

ABOUT: dict[str, Any] = {
    "source": "https://github.com/Hhhhhhao/continuous_tokenizer",
    "licence": "none given in the repository; its maintainer named MIT or Apache-2.0",
    "citation": "Chen et al., Masked Autoencoders Are Effective Tokenizers for Diffusion Models, ICML 2025, "
    "arXiv:2502.03444",
    "where": "Take a checkpoint of the repository's generator training, or weights that its README links to.",
    "kind": "generator",
}
NAMES = ("maetok_sit_b_1", "maetok_sit_l_1", "maetok_sit_xl_1", "maetok_dit_xl_1")
HUBS = {"maetok_sit_xl_1": "MAETok/sit-xl_maetok-b-128"}
SOFTVQ = ABOUT | {
    "citation": "Chen et al., SoftVQ-VAE: Efficient 1-Dimensional Continuous Tokenizer, CVPR 2025, arXiv:2412.10958"
}
ON_SOFTVQ = {  # the published ones: generator -> tokenizers
    "sit": ("b_64", "bl_64", "l_64", "b_32", "bl_32", "l_32", "bl_64_512", "l_32_512"),
    "dit": ("l_64", "l_32"),
}
ENTRIES = {
    **{name: Entry(**ABOUT, hub=HUBS.get(name), unverified=name in HUBS) for name in NAMES},
    **{f"softvq_{kind}_xl_1": Entry(**SOFTVQ) for kind in ON_SOFTVQ},
    **{
        f"softvq_{tokenizer}_{kind}_xl_1": Entry(
            **SOFTVQ, hub=f"SoftVQVAE/{kind}-xl_softvq-{tokenizer.replace('_', '-')}"
        )
        for kind, tokenizers in ON_SOFTVQ.items()
        for tokenizer in tokenizers
    },
}
NOMINAL_SIZE = 128  # latent tokens: the default if no table shows another


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """DiT's keywords on a latent without a grid, inferred from the tensors, and the state dict under our names.

    `input_size`, `num_classes` and `num_heads` of a config.json are read if they cannot be inferred. Only the DiT has a
    learned variance. Raises ValueError for anything missing, unknown or contradictory.
    """
    keywords, renamed = convert_transformer(
        name,
        state,
        settings,
        sequence=True,
        nominal_size=NOMINAL_SIZE,
        keeps_variance="_dit_" in name,
    )
    return Converted("backbone", "dit", keywords, renamed)
