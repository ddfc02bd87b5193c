"""DiT^DH's official checkpoints: the generators of RAE.

[0] Zheng et al., Diffusion Transformers with Representation Autoencoders, 2025, https://arxiv.org/abs/2510.11690
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from einops import rearrange

from ldbench.official import (
    IN_A_BLOCK,
    Q_NORM,
    ROPE_THETA,
    Converted,
    Entry,
    count_blocks,
    count_classes,
    get_count,
    rename,
    shape,
    swiglu_ratio,
    validate_keys,
    validate_setting,
    validate_table,
)

if TYPE_CHECKING:
    from torch import Tensor

ABOUT: dict[str, Any] = {
    "source": "https://github.com/bytetriper/RAE",
    "licence": "MIT",
    "citation": "Zheng et al., Diffusion Transformers with Representation Autoencoders, arXiv 2025, arXiv:2510.11690",
    "where": "Download a DiTDH checkpoint from the links in the repository's README.",
    "kind": "generator",
}
NAMES = ("ditdh", "ditdh_s_1", "ditdh_xl_1")  # the last two name sizes, which are read off the tensors all the same
ENTRIES = {name: Entry(**ABOUT) for name in NAMES}

NOMINAL_SIZE = 16  # side of the latent map of a 256 px image: the default if no table shows another
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 2048: 16}  # width -> heads of the official networks
PARTS = ("encoder", "head")
TABLES = {  # of each part
    "cos": ("enc_feat_rope.freqs_cos", "dec_feat_rope.freqs_cos"),
    "sin": ("enc_feat_rope.freqs_sin", "dec_feat_rope.freqs_sin"),
}
PREFIXES = {  # theirs -> ours
    "s_embedder.proj": "embed",
    "x_embedder.proj": "head_embed",
    "s_projector": "head_condition",
    "t_embedder.W": "time.frequencies",
    "t_embedder.mlp.0": "time.fc1",
    "t_embedder.mlp.2": "time.fc2",
    "y_embedder.embedding_table": "classes",
    "final_layer.norm_final": "head.head.norm",
    "final_layer.linear": "head.head.linear",
    "final_layer.adaLN_modulation.1": "head.head.modulation",
}


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """DiT^DH's keywords, inferred from the tensors, and its state dict under our names.

    Heads are read off the rotary tables, and the blocks of the encoder are told from those of the head by their width
    or the width of their heads. Where tensors do not show them, `num_heads` and `depth` are read from the settings, two
    numbers each, and so are `input_size`, `num_classes` and `use_rope`. Tables are computed here, and must agree with
    those in the file. Raises ValueError for anything missing, unknown or contradictory.
    """
    from ldbench.core.latent import LatentSpec
    from ldbench.layers.modulation import swiglu_hidden
    from ldbench.layers.patches import LatentPatches

    state = dict(state)
    rotary = {key: state.pop(key) for keys in TABLES.values() for key in keys if key in state}
    positions = state.pop("pos_embed", None)
    total = count_blocks(state, "blocks")
    rms, swiglu = "blocks.0.norm1.weight" in state, "blocks.0.mlp.w12.weight" in state
    expected = expected_keys(state, total, rms=rms, swiglu=swiglu)
    validate_keys(name, ENTRIES[name], missing=expected - state.keys(), unknown=state.keys() - expected)

    width, channels, patch_size, _ = shape(state, "s_embedder.proj.weight", 4)
    head_width = shape(state, "x_embedder.proj.weight", 4)[0]
    depth = split_blocks(name, state, settings, total)
    uses_rotary = bool(settings.get("use_rope", bool(rotary) or rms))
    if rotary:
        validate_setting(settings, "use_rope", True)
    heads = [
        count_heads(name, state, settings, rotary, part=part, width=size, block=block)
        for part, (size, block) in enumerate(((width, 0), (head_width, depth[0])))
    ]
    tokens = [shape({"pos_embed": positions}, "pos_embed", 3)[1]] if positions is not None else []
    tokens += [shape(rotary, key, 2)[0] for key in rotary]
    side = get_count(settings, "input_size", NOMINAL_SIZE * patch_size)
    if tokens:
        side = patch_size * math.isqrt(tokens[0])
        validate_setting(settings, "input_size", side)
    latent = LatentSpec(side * side, channels, (side, side))
    patches = LatentPatches(latent, patch_size)
    if positions is not None:
        validate_table("pos_embed", positions, patches.positions(width))
    for part, size in enumerate((width, head_width)):
        for table, ours in zip(TABLES, patches.rotations(size // heads[part], ROPE_THETA), strict=True):
            if (key := TABLES[table][part]) in rotary:
                validate_table(key, rotary[key], ours[0].repeat_interleave(2, dim=-1))

    rows = shape(state, "final_layer.linear.weight", 2)[0]
    if rows != patches.positions_per_token * channels:
        raise ValueError(
            f"final_layer.linear has {rows} rows. Expected {patches.positions_per_token * channels} for {channels} "
            "channels."
        )
    for embed in ("s_embedder", "x_embedder"):
        state[f"{embed}.proj.weight"] = rearrange(state[f"{embed}.proj.weight"], "d c p q -> d (p q c)")
    hidden = [shape(state, f"blocks.{i}.mlp.{'w3' if swiglu else 'fc2'}.weight", 2)[1] for i in (0, depth[0])]
    ratio = swiglu_ratio(hidden[0], width) if swiglu else hidden[0] / width
    in_head = int(head_width * ratio)
    if hidden[1] != (swiglu_hidden(in_head) if swiglu else in_head):
        raise ValueError(
            f"The networks of the head's blocks have {hidden[1]} hidden units, and those of the encoder's {hidden[0]}, "
            "which is another ratio to their widths. Expected the same ratio."
        )
    num_labels = shape(state, "y_embedder.embedding_table.weight", 2)[0]
    num_classes = count_classes(settings, num_labels)
    keywords = {
        "latent": latent.to_dict(),
        "num_classes": num_classes,
        "has_null_class": num_labels == num_classes + 1,
        "learned_variance": False,
        "patch_size": patch_size,
        "width": width,
        "depth": depth[0],
        "num_heads": heads[0],
        "head_width": head_width,
        "head_depth": depth[1],
        "head_num_heads": heads[1],
        "mlp_ratio": ratio,
        "norm": "rms" if rms else "layer",
        "feedforward": "swiglu" if swiglu else "gelu",
        "rope_theta": ROPE_THETA if uses_rotary else None,
        "qk_norm": Q_NORM in state,
        "shifts": shape(state, "blocks.0.adaLN_modulation.1.weight", 2)[0] == 6 * width,
        "class_std": 0.02,  # official; only for initialization
        "checkpointing": False,
    }
    prefixes = PREFIXES | {
        f"blocks.{i}": f"encoder.{i}" if i < depth[0] else f"head.blocks.{i - depth[0]}" for i in range(total)
    }
    return Converted(
        "backbone", "ditdh", keywords, {rename(key, prefixes, IN_A_BLOCK): value for key, value in state.items()}
    )


def expected_keys(state: Mapping[str, Tensor], total: int, *, rms: bool, swiglu: bool) -> set[str]:
    """The names of all tensors but tables; the head has no projection of the encoder's output of its own width."""
    layers = {"s_embedder.proj", "x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2"}
    layers |= {"final_layer.linear", "final_layer.adaLN_modulation.1"}
    embeds = [f"{embed}.proj.weight" for embed in ("s_embedder", "x_embedder")]
    if all(key in state for key in embeds) and len({shape(state, key, 4)[0] for key in embeds}) > 1:
        layers.add("s_projector")
    without_bias = {"y_embedder.embedding_table"} | ({"final_layer.norm_final"} if rms else set())
    for block in (f"blocks.{i}" for i in range(total)):
        layers |= {f"{block}.{layer}" for layer in ("attn.qkv", "attn.proj", "adaLN_modulation.1")}
        layers |= {f"{block}.mlp.{layer}" for layer in (("w12", "w3") if swiglu else ("fc1", "fc2"))}
        without_bias |= {f"{block}.{norm}" for norm in ("norm1", "norm2") if rms}
        norms = {f"{block}.attn.{norm}" for norm in ("q_norm", "k_norm") if Q_NORM in state}
        (layers if Q_NORM.replace("weight", "bias") in state else without_bias).update(norms)
    keys = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    return keys | {f"{layer}.weight" for layer in without_bias} | {"t_embedder.W"}


def split_blocks(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any], total: int) -> tuple[int, int]:
    """The numbers of blocks of the encoder and of the head: where the blocks or their heads change width, or `depth`
    of the settings.
    """
    kinds = [
        (
            shape(state, f"blocks.{i}.attn.qkv.weight", 2)[1],
            shape(state, f"blocks.{i}.attn.q_norm.weight", 1) if Q_NORM in state else None,
        )
        for i in range(total)
    ]
    changes = [i for i in range(1, total) if kinds[i] != kinds[i - 1]]
    depth = pair_of(settings, "depth")
    if depth is None:
        if len(changes) != 1:
            raise ValueError(
                f"The {total} blocks of this {name} do not show which are the encoder's and which the head's. Set "
                f"depth=[{max(1, total - 2)},{min(2, total - 1)}], the number of each, in load_official or a "
                "config.json."
            )
        return changes[0], total - changes[0]
    if sum(depth) != total or changes not in ([], [depth[0]]):
        found = f"change at {', '.join(map(str, changes))}" if changes else "are alike"
        raise ValueError(
            f"depth is {list(depth)}, but the tensors have {total} blocks, which {found}. They belong to different "
            "models."
        )
    return depth


def count_heads(
    name: str,
    state: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    rotary: Mapping[str, Tensor],
    *,
    part: int,  # 0 the encoder, 1 the head
    width: int,
    block: int,  # the first of the part
) -> int:
    """The attention heads of a part: by their width if a tensor shows it, else by the settings or the official size."""
    given = pair_of(settings, "num_heads")
    keys = [TABLES[table][part] for table in TABLES if TABLES[table][part] in rotary]
    if keys or Q_NORM in state:
        key = f"blocks.{block}.attn.q_norm.weight"
        head_dim = shape(rotary, keys[0], 2)[1] if keys else shape(state, key, 1)[0]
        if given is not None and given[part] != width // head_dim:
            raise ValueError(
                f"num_heads is {list(given)}, but the tensors have {width // head_dim} in the {PARTS[part]}. They "
                "belong to different models."
            )
        return width // head_dim
    if given is None and width not in HEADS:
        raise ValueError(
            f"The heads of this {name} cannot be inferred: no official model has a width of {width}. Set "
            "num_heads=[16,16], those of the encoder and of the head, in load_official or a config.json."
        )
    return HEADS[width] if given is None else given[part]


def pair_of(settings: Mapping[str, Any], key: str) -> tuple[int, int] | None:
    """A setting of two whole numbers above zero, or None where it is not set. Raises ValueError for anything else."""
    value = settings.get(key)
    if value is None:
        return None
    if not isinstance(value, Sequence) or len(value) != 2 or not all(type(one) is int and one > 0 for one in value):
        raise ValueError(f"{key} is {ascii(value)[:60]}. Expected two whole numbers, as in {key}=[12,2].")
    return value[0], value[1]
