"""Officially released models: one key map for each checkpoint family. Listing them loads no torch."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from einops import rearrange

if TYPE_CHECKING:
    from torch import Tensor


NO_FAMILY = ("load", "model_card")  # modules beside this one that are no key maps
REVISION = 1  # raised when a key map changes what an import ends in

Kind = Literal["tokenizer", "generator"]
HEADS = {
    384: 6,
    768: 12,
    1024: 16,
    1152: 16,
    1536: 24,
    1792: 28,
}  # width -> heads of every official DiT, SiT and LightningDiT
Q_NORM = "blocks.0.attn.q_norm.weight"  # there if queries and keys are normalised
MOST = 100_000  # of anything that a config.json counts
NEAR = 1e-4  # how far a fixed table in a file may be from the computed one
TRANSFORMER = {  # theirs -> ours, by prefix: what DiT, SiT and LightningDiT have in common
    "x_embedder.proj": "embed",
    "x_embedder": "embed",
    "t_embedder.mlp.0": "condition.time.fc1",
    "t_embedder.mlp.2": "condition.time.fc2",
    "y_embedder.embedding_table": "condition.classes",
    "blocks": "transformer.blocks",
    "final_layer.norm_final": "transformer.head.norm",
    "final_layer.linear": "transformer.head.linear",
    "final_layer.adaLN_modulation.1": "transformer.head.modulation",
}
IN_A_BLOCK = {".adaLN_modulation.1.": ".modulation.", ".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}


@dataclass(frozen=True)
class Entry:
    """One official model: where it is from, under which licence, and what to cite."""

    source: str  # the repository
    licence: str
    citation: str
    where: str  # how to get the file, as a sentence
    hub: str | None = None  # its place on the Hugging Face hub, owner/name
    latent_scale: float | None = None  # what its released generators multiply the latents by, where it is one number
    kind: Kind = "tokenizer"


@dataclass(frozen=True)
class Converted:
    """An official state dict in this house's words."""

    group: str  # the config group of its component
    component: str
    keywords: Mapping[str, Any]  # the constructor's
    state: Mapping[str, Tensor]


def families() -> list[ModuleType]:
    """The key maps beside this module: each has `ENTRIES` by name and `convert(name, state, settings)`."""
    return [
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
        if found.name not in NO_FAMILY
    ]


def catalogue() -> dict[str, Entry]:
    """Every official model, by name."""
    return {name: entry for family in families() for name, entry in family.ENTRIES.items()}


def entry(name: str, kind: Kind | None = None) -> Entry:
    """One official model; of this kind, if any is given. Raises ValueError for an unknown name."""
    known = {found: about for found, about in catalogue().items() if kind in (None, about.kind)}
    if name not in known:
        raise ValueError(f"There is no official {kind or 'model'} named {name!r}. Known: {', '.join(sorted(known))}.")
    return known[name]


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """An official state dict under our names; `settings`: what a config.json beside it says.

    Raises ValueError for tensors that are missing or not known, and for settings that contradict them.
    """
    entry(name)
    empty = [key for key, value in state.items() if 0 in value.shape]
    if empty:
        raise ValueError(
            f"{empty[0][:80]} has the shape {tuple(state[empty[0]].shape)}, without any number. Copy the file again."
        )
    family = next(family for family in families() if name in family.ENTRIES)
    return family.convert(name, state, settings)


def refuse(name: str, entry: Entry, *, missing: Set[str], unknown: Set[str]) -> None:
    """Raises ValueError naming the first tensors of a checkpoint that are missing or unknown, if any."""
    faults = [(what, sorted(keys)) for what, keys in (("missing", missing), ("unknown", unknown)) if keys]
    told = [f"{what} {', '.join(keys[:3])}{', ...' if keys[3:] else ''}" for what, keys in faults]
    if told:
        raise ValueError(f"These tensors are no {name}: {'; '.join(told)}. Expected {entry.source}'s checkpoint.")


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many different blocks stand under a prefix; at least one is expected."""
    numbers = {key.removeprefix(f"{prefix}.").split(".")[0] for key in state if key.startswith(f"{prefix}.")}
    return max(1, sum(number.isdecimal() for number in numbers))


def shape(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor. Raises ValueError unless it has this many dimensions."""
    found = tuple(state[key].shape)
    if len(found) != dimensions:
        raise ValueError(f"{key} has the shape {found}. Expected {dimensions} dimensions.")
    return found


def unprefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what distribution and compilation put before its keys, in whatever order."""
    found = {}
    for key, value in state.items():
        while key.startswith(("module.", "_orig_mod.")):
            key = key.partition(".")[2]
        found[key] = value
    return found


def convert_transformer(
    name: str,
    state: Mapping[str, Tensor],  # without prefixes, and without tables other than `pos_embed`
    settings: Mapping[
        str, Any
    ],  # `input_size` (the side of a map, or the length of a sequence), `num_classes` and `num_heads` are read
    *,
    sequence: bool,  # whether the latent lies on no map
    nominal_size: int,  # what `input_size` is where nothing tells it
    keeps_variance: bool,  # whether outputs beyond C channels are kept
    feedforward: tuple[str, str] = ("mlp.fc1", "mlp.fc2"),  # the layers of a block's position-wise network
    norms: Iterable[str] = (),  # what has a weight and no bias
    num_tokens: int | None = None,  # T, as another table tells it where `pos_embed` is absent
    head_dim: int | None = None,  # where another table tells it
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The keywords that all diffusion transformers have in common, inferred from the tensors, and the state dict under our names.

    `pos_embed` is computed here, and a file that holds one must hold that one. Labels are classes and a null class after them, unless there is
    only one label or `num_classes` says otherwise. Raises ValueError for anything missing, unknown or contradictory.
    """
    from ldbench.core.latent import LatentSpec
    from ldbench.layers.patches import LatentPatches

    state = dict(state)
    table = state.pop("pos_embed", None)
    depth = count_blocks(state, "blocks")
    embed = "x_embedder" if sequence else "x_embedder.proj"
    expected = expect_transformer(embed, depth, feedforward, norms, state)
    refuse(name, entry(name), missing=expected - state.keys(), unknown=state.keys() - expected)

    width, channels, *kernel = shape(state, f"{embed}.weight", 2 if sequence else 4)
    patch_size = kernel[0] if kernel else 1
    if table is not None:
        num_tokens = shape({"pos_embed": table}, "pos_embed", 3)[1]
    size = counted(settings, "input_size", nominal_size)
    if num_tokens is not None:
        size = broadcast_from_leader(
            settings, "input_size", patch_size * (num_tokens if sequence else math.isqrt(num_tokens))
        )
    latent = LatentSpec(size, channels) if sequence else LatentSpec(size * size, channels, (size, size))
    patches = LatentPatches(latent, patch_size)
    if table is not None:
        check_table("pos_embed", table, patches.positions(width))

    rows = shape(state, "final_layer.linear.weight", 2)[0]
    outputs = patches.positions_per_token * channels
    if rows not in (outputs, 2 * outputs) or shape(state, "final_layer.linear.bias", 1) != (rows,):
        raise ValueError(
            f"final_layer.linear has {rows} rows. Expected {outputs} for {channels} channels, or twice as many."
        )
    if not keeps_variance:
        for key in (
            "final_layer.linear.weight",
            "final_layer.linear.bias",
        ):  # each place has the prediction's rows, then the variance's
            state[key] = state[key].unflatten(0, (patches.positions_per_token, -1))[:, :channels].flatten(0, 1)
    if not sequence:
        state[f"{embed}.weight"] = rearrange(state[f"{embed}.weight"], "d c p q -> d (p q c)")

    num_labels = shape(state, "y_embedder.embedding_table.weight", 2)[0]
    num_classes = count_classes(settings, num_labels)
    keywords = {
        "latent": latent.to_dict(),
        "num_classes": num_classes,
        "has_null_class": num_labels == num_classes + 1,
        "learned_variance": keeps_variance and rows == 2 * outputs,
        "patch_size": patch_size,
        "width": width,
        "depth": depth,
        "num_heads": count_heads(name, state, settings, width, head_dim),
        "mlp_ratio": shape(state, f"blocks.0.{feedforward[0]}.weight", 2)[0] / width,
        "qk_norm": Q_NORM in state,
        "class_std": 0.02,  # official; only initialises
        "checkpointing": False,
    }
    return keywords, {rename(key, TRANSFORMER, IN_A_BLOCK): value for key, value in state.items()}


def expect_transformer(
    embed: str, depth: int, feedforward: Iterable[str], norms: Iterable[str], state: Mapping[str, Tensor]
) -> set[str]:
    """The names of all tensors that a diffusion transformer must hold besides tables; queries and keys are normed if those of the first block are."""
    layers = {embed, "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear", "final_layer.adaLN_modulation.1"}
    without_bias = {"y_embedder.embedding_table", *norms}
    for block in (f"blocks.{i}" for i in range(depth)):
        layers |= {f"{block}.{layer}" for layer in ("attn.qkv", "attn.proj", "adaLN_modulation.1", *feedforward)}
        head_norms = {f"{block}.attn.{norm}" for norm in ("q_norm", "k_norm") if Q_NORM in state}
        (layers if Q_NORM.replace("weight", "bias") in state else without_bias).update(head_norms)
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {
        f"{layer}.weight" for layer in without_bias
    }


def count_classes(settings: Mapping[str, Any], num_labels: int) -> int:
    """How many labels are classes: all but the last, which is the null class, unless there is only one or a config.json says otherwise."""
    num_classes = counted(settings, "num_classes", max(1, num_labels - 1))
    if num_labels not in (num_classes, num_classes + 1):
        told = f"config.json says num_classes {num_classes}, and the tensors beside it have {num_labels} labels"
        raise ValueError(f"{told}. They are not of one model.")
    return num_classes


def count_heads(
    name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any], width: int, head_dim: int | None
) -> int:
    """How many heads there are: by the width of one where a tensor tells it, as a config.json says, or as the official size of this width has."""
    if Q_NORM in state:
        head_dim = shape(state, Q_NORM, 1)[0]
    if head_dim is not None:
        return broadcast_from_leader(settings, "num_heads", width // head_dim)
    if "num_heads" not in settings and width not in HEADS:
        raise ValueError(
            f"No tensor tells the heads of this {name}, and its width {width} is of no official size. Say num_heads in a config.json."
        )
    return counted(settings, "num_heads", HEADS.get(width, 1))


def counted(settings: Mapping[str, Any], key: str, otherwise: int) -> int:
    """What a config.json counts, where it does. Raises ValueError for what is no count of such a thing."""
    told = settings.get(key, otherwise)
    if type(told) is not int or not 1 <= told <= MOST:
        raise ValueError(f"config.json says {key} {ascii(told)[:60]}. Expected a whole number from 1 to {MOST}.")
    return told


def broadcast_from_leader(settings: Mapping[str, Any], key: str, told: int) -> int:
    """What the tensors tell. Raises ValueError where a config.json beside them says otherwise."""
    if settings.get(key, told) != told:
        raise ValueError(
            f"config.json says {key} {settings[key]}, and the tensors beside it have {told}. They are not of one model."
        )
    return told


def check_table(key: str, given: Tensor, expected: Tensor) -> None:
    """Raises ValueError where a fixed table of a file is not the one that is computed here."""
    if given.shape != expected.shape:
        raise ValueError(f"{key} has the shape {tuple(given.shape)}. Expected {tuple(expected.shape)}.")
    off = float((given.float() - expected).abs().max())
    if not off <= NEAR:
        raise ValueError(
            f"{key} is off by {off:.1e} from the fixed table that it should be. Learned positions are not held here."
        )


def rename(key: str, prefixes: Mapping[str, str], inside: Mapping[str, str] | None = None) -> str:
    """Our name of one of their tensors: the longest prefix that fits is replaced, then what stands inside."""
    prefix = max((theirs for theirs in prefixes if key == theirs or key.startswith(f"{theirs}.")), key=len)
    name = prefixes[prefix] + key.removeprefix(prefix)
    for theirs, ours in (inside or {}).items():
        name = name.replace(theirs, ours)
    return name
