"""DiT's official checkpoints.

[0] Peebles and Xie, Scalable Diffusion Models with Transformers, 2023, https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import Converted, Entry, convert_transformer

if TYPE_CHECKING:
    from torch import Tensor

ABOUT: dict[str, Any] = {
    "source": "https://github.com/facebookresearch/DiT",
    "licence": "CC-BY-NC 4.0",
    "citation": "Peebles and Xie, Scalable Diffusion Models with Transformers, ICCV 2023, arXiv:2212.09748",
    "kind": "generator",
}
RELEASED = "Download DiT-XL-2-256x256.pt or DiT-XL-2-512x512.pt from the links in the repository's README."
TRAINED = "No weights of this size are released: train them with the repository, and give the checkpoint."
NAMES = [f"dit_{size}_{patch}" for size in ("s", "b", "l", "xl") for patch in (2, 4, 8)]
ENTRIES = {name: Entry(**ABOUT, where=RELEASED if name == "dit_xl_2" else TRAINED) for name in NAMES}
NOMINAL_SIZE = 32  # side of the latent map of a 256 px image: the default if no table shows another


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """DiT's keywords, inferred from the tensors, and its state dict under our names.

    No official file comes with `settings`; `input_size`, `num_classes` and `num_heads` of a config.json are read if
    they cannot be inferred. Raises ValueError for anything missing, unknown or contradictory.
    """
    keywords, renamed = convert_transformer(
        name,
        state,
        settings,
        sequence=False,
        nominal_size=NOMINAL_SIZE,
        keeps_variance=True,
    )
    return Converted("backbone", "dit", keywords, renamed)
