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


REVISION = 1  # raised when a key map changes what an import ends in

Kind = Literal["tokenizer", "generator"]
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 1536: 24, 1792: 28}  # width -> heads of every official DiT, SiT and LightningDiT
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
    kind: Kind = "tokenizer"


@dataclass(frozen=True)
class Converted:
    """An official state dict in this house's words."""

    group: str  # the config group of its component
    component: str
    keywords: Mapping[str, Any]  # the constructor's
    state: Mapping[str, Tensor]


def families() -> list[ModuleType]:
    """The modules beside this one: each has `ENTRIES` by name and `convert(name, state, settings)`."""
    return [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


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
    settings: Mapping[str, Any],  # `input_size` (the side of a map, or the length of a sequence), `num_classes` and `num_heads` are read
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
    embed = "x_embedder" if sequence else "x_embedder.proj"
    qk_norm = "blocks.0.attn.q_norm.weight" in state
    head_norms = ("attn.q_norm", "attn.k_norm") if qk_norm else ()
    layers = {embed, "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear", "final_layer.adaLN_modulation.1"}
    bare = {"y_embedder.embedding_table", *norms}
    for block in (f"blocks.{i}" for i in range(count_blocks(state, "blocks"))):
        layers |= {f"{block}.{layer}" for layer in ("attn.qkv", "attn.proj", "adaLN_modulation.1", *feedforward)}
        with_bias = "blocks.0.attn.q_norm.bias" in state
        (layers if with_bias else bare).update(f"{block}.{norm}" for norm in head_norms)
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {f"{layer}.weight" for layer in bare}
    refuse(name, entry(name), missing=expected - state.keys(), unknown=state.keys() - expected)

    width, channels, *patch = shape(state, f"{embed}.weight", 2 if sequence else 4)
    patch_size = patch[0] if patch else 1
    if table is not None:
        num_tokens = shape({"pos_embed": table}, "pos_embed", 3)[1]
    size = settings.get("input_size", nominal_size)
    if num_tokens is not None:
        size = agreed(settings, "input_size", patch_size * (num_tokens if sequence else math.isqrt(num_tokens)))
    latent = LatentSpec(size, channels) if sequence else LatentSpec(size * size, channels, (size, size))
    patches = LatentPatches(latent, patch_size)
    if table is not None:
        check_table("pos_embed", table, patches.positions(width))

    num_labels = shape(state, "y_embedder.embedding_table.weight", 2)[0]
    num_classes = settings.get("num_classes", max(1, num_labels - 1))
    if num_labels not in (num_classes, num_classes + 1):
        raise ValueError(
            f"config.json says num_classes {num_classes}, and the tensors beside it have {num_labels} labels. They are not of one model."
        )
    if qk_norm:
        head_dim = shape(state, "blocks.0.attn.q_norm.weight", 1)[0]
    num_heads = HEADS.get(width) if head_dim is None else width // head_dim
    if head_dim is None and "num_heads" in settings:
        num_heads = settings["num_heads"]
    if num_heads is None:
        raise ValueError(f"No tensor tells the heads of this {name}, and its width {width} is of no official size. Say num_heads in a config.json.")

    rows = shape(state, "final_layer.linear.weight", 2)[0]
    if rows not in (patches.places * channels, 2 * patches.places * channels) or shape(state, "final_layer.linear.bias", 1) != (rows,):
        raise ValueError(f"final_layer.linear has {rows} rows. Expected {patches.places * channels} for {channels} channels, or twice as many.")
    learned_variance = keeps_variance and rows == 2 * patches.places * channels
    if not learned_variance:
        for kind in ("weight", "bias"):  # each place of a patch has the prediction's rows, then the variance's
            state[f"final_layer.linear.{kind}"] = state[f"final_layer.linear.{kind}"].unflatten(0, (patches.places, -1))[:, :channels].flatten(0, 1)
    if not sequence:
        state[f"{embed}.weight"] = rearrange(state[f"{embed}.weight"], "d c p q -> d (p q c)")
    keywords = {
        "latent": latent.to_numbers(),
        "num_classes": num_classes,
        "has_null_class": num_labels == num_classes + 1,
        "learned_variance": learned_variance,
        "patch_size": patch_size,
        "width": width,
        "depth": count_blocks(state, "blocks"),
        "num_heads": num_heads,
        "mlp_ratio": shape(state, f"blocks.0.{feedforward[0]}.weight", 2)[0] / width,
        "qk_norm": qk_norm,
        "class_std": 0.02,  # official; only initialises
        "checkpointing": False,
    }
    return keywords, {rename(key, TRANSFORMER, IN_A_BLOCK): value for key, value in state.items()}


def agreed(settings: Mapping[str, Any], key: str, told: int) -> int:
    """What the tensors tell. Raises ValueError where a config.json beside them says otherwise."""
    if settings.get(key, told) != told:
        raise ValueError(f"config.json says {key} {settings[key]}, and the tensors beside it have {told}. They are not of one model.")
    return told


def check_table(key: str, given: Tensor, expected: Tensor) -> None:
    """Raises ValueError where a fixed table of a file is not the one that is computed here."""
    if given.shape != expected.shape:
        raise ValueError(f"{key} has the shape {tuple(given.shape)}. Expected {tuple(expected.shape)}.")
    off = float((given.float() - expected).abs().max())
    if not off <= NEAR:
        raise ValueError(f"{key} is off by {off:.1e} from the fixed table that it should be. Learned positions are not held here.")


def rename(key: str, prefixes: Mapping[str, str], inside: Mapping[str, str] | None = None) -> str:
    """Our name of one of their tensors: the longest prefix that fits is replaced, then what stands inside."""
    prefix = max((theirs for theirs in prefixes if key == theirs or key.startswith(f"{theirs}.")), key=len)
    name = prefixes[prefix] + key.removeprefix(prefix)
    for theirs, ours in (inside or {}).items():
        name = name.replace(theirs, ours)
    return name
