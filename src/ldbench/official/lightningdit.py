"""LightningDiT's official checkpoints, in any combination of its options.

[0] Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, 2025,
    https://arxiv.org/abs/2501.01423
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldbench.official import (
    ROPE_THETA,
    Converted,
    Entry,
    convert_transformer,
    count_blocks,
    shape,
    swiglu_ratio,
    validate_setting,
    validate_table,
)

if TYPE_CHECKING:
    from torch import Tensor

ABOUT: dict[str, Any] = {
    "source": "https://github.com/hustvl/LightningDiT",
    "licence": "MIT",
    "citation": "Yao et al., Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models, "
    "CVPR 2025, arXiv:2501.01423",
    "kind": "generator",
}
RELEASED = "Download LightningDiT-XL/1 (64 or 800 epochs) from the links in the repository's README."
HUB = "hustvl/lightningdit-xl-imagenet256-800ep"
TRAINED = "No weights of this size are released: train them with the repository, and give the checkpoint."
SIZES = ("b_1", "b_2", "l_2", "xl_1", "xl_2", "1p0b_1", "1p0b_2", "1p6b_1", "1p6b_2")
ENTRIES = {
    f"lightningdit_{size}": Entry(**ABOUT, where=RELEASED, hub=HUB, unverified=True)
    if size == "xl_1"
    else Entry(**ABOUT, where=TRAINED)
    for size in SIZES
}

NOMINAL_SIZE = 16  # side of the latent map of a 256 px image: the default if no table shows another
COS, SIN = "feat_rope.freqs_cos", "feat_rope.freqs_sin"


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """LightningDiT's keywords, inferred from the tensors, and its state dict under our names, without variance outputs.

    Rotary tables are computed here, and must agree with those in the file. A file without them has rotary positions if
    it has RMSNorm, as all released ones do, or if `use_rope` is set in a config.json; its `input_size`, `num_classes`
    and `num_heads` are read if they cannot be inferred. Raises ValueError for anything missing, unknown or
    contradictory.
    """
    from ldbench.core.latent import LatentSpec
    from ldbench.layers.patches import LatentPatches

    state = dict(state)
    tables = {key: state.pop(key) for key in (COS, SIN) if key in state}
    rms, swiglu = "blocks.0.norm1.weight" in state, "blocks.0.mlp.w12.weight" in state
    rotary = bool(settings.get("use_rope", bool(tables) or rms))
    if tables:
        validate_setting(settings, "use_rope", True)
    rows, head_dim = shape(tables, next(iter(tables)), 2) if tables else (None, None)
    norms = [f"blocks.{i}.{norm}" for i in range(count_blocks(state, "blocks")) for norm in ("norm1", "norm2")]
    keywords, renamed = convert_transformer(
        name,
        state,
        settings,
        sequence=False,
        nominal_size=NOMINAL_SIZE,
        keeps_variance=False,
        feedforward=("mlp.w12", "mlp.w3") if swiglu else ("mlp.fc1", "mlp.fc2"),
        norms=(*norms, "final_layer.norm_final") if rms else (),
        num_tokens=rows,
        head_dim=head_dim,
    )
    width = keywords["width"]
    patches = LatentPatches(LatentSpec.from_dict(keywords["latent"]), keywords["patch_size"])
    if tables:
        cos, sin = patches.rotations(width // keywords["num_heads"], ROPE_THETA)
        for key, table in tables.items():
            validate_table(key, table, (cos if key == COS else sin)[0].repeat_interleave(2, dim=-1))
    hidden = shape(renamed, "transformer.blocks.0.mlp.fc2.weight", 2)[1]
    keywords |= {
        "mlp_ratio": swiglu_ratio(hidden, width) if swiglu else hidden / width,
        "norm": "rms" if rms else "layer",
        "feedforward": "swiglu" if swiglu else "gelu",
        "rope_theta": ROPE_THETA if rotary else None,
        "shifts": shape(renamed, "transformer.blocks.0.modulation.weight", 2)[0] == 6 * width,
    }
    return Converted("backbone", "lightningdit", keywords, renamed)
