"""SiT's official checkpoints: DiT's tensors, trained by flow matching, with unused variance outputs.

[0] Ma et al., SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant Transformers, 2024,
    https://arxiv.org/abs/2401.08740
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry, convert_transformer

if TYPE_CHECKING:
    from torch import Tensor

ABOUT: dict[str, Any] = {
    "source": "https://github.com/willisma/SiT",
    "licence": "MIT",
    "citation": "Ma et al., SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant "
    "Transformers, ECCV 2024, arXiv:2401.08740",
    "kind": "generator",
}
RELEASED = "Download SiT-XL-2-256x256.pt from the link in the repository's README."
TRAINED = "No weights of this size are released: train them with the repository, and give the checkpoint."
NAMES = [f"sit_{size}_{patch}" for size in ("s", "b", "l", "xl") for patch in (2, 4, 8)]
ENTRIES = {name: Entry(**ABOUT, where=RELEASED if name == "sit_xl_2" else TRAINED) for name in NAMES}
NOMINAL_SIZE = 32  # side of the latent map of a 256 px image: the default if no table shows another


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """DiT's keywords, inferred from the tensors, and the state dict under our names, without the head's variance rows.

    No official file comes with `settings`; `input_size`, `num_classes` and `num_heads` of a config.json are read if
    they cannot be inferred. Raises ValueError for anything missing, unknown or contradictory.
    """
    keywords, renamed = convert_transformer(
        name,
        state,
        settings,
        sequence=False,
        nominal_size=NOMINAL_SIZE,
        keeps_variance=False,
    )
    return Converted("backbone", "dit", keywords, renamed)
