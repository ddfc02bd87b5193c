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

from ldbench.config.error_messages import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from ldbench.core.latent_stats import LatentStats


OTHER_MODULES = ("load", "model_card", "transformers_names")  # modules of this package that are no key maps
REVISION = 1  # raised when a key map changes the result of an import

Kind = Literal["tokenizer", "generator"]
# width -> heads of every official DiT, SiT and LightningDiT
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 1536: 24, 1792: 28}
ROPE_THETA = 10000.0  # of every official rotary table
Q_NORM = "blocks.0.attn.q_norm.weight"  # exists if queries and keys are normalized
MANY = 12  # names that a message lists
MAX_COUNT = 100_000  # of any integer setting in a config.json
TABLE_TOLERANCE = 1e-4  # between a fixed table in a file and the computed one
TRANSFORMER = {  # theirs -> ours, by prefix: shared by DiT, SiT and LightningDiT
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
    """One official model: its source, its license, and its citation."""

    source: str  # the repository
    licence: str
    citation: str
    where: str  # how to get the file, as a sentence
    hub: str | None = None  # its repository on the Hugging Face hub, owner/name
    unverified: bool = False  # whether nobody here has seen that repository
    latent_scale: float | None = None  # the factor of the latents in its released generators, if it is one number
    latent_stats: tuple[float, float] | None = None  # or their mean and deviation, where its files may lack them
    kind: Kind = "tokenizer"
    any_size: bool = False  # whether it takes all image sizes that its factor divides
    sizes_from_file: bool = False  # whether its files may have other sizes than its name says
    averaged: bool = False  # whether its own loader takes the averaged weights of a training checkpoint, under `ema`

    @property
    def takes_averaged(self) -> bool:
        """Whether averaged weights are taken where a file has them: by all generators, and by some tokenizers."""
        return self.averaged or self.kind == "generator"


@dataclass(frozen=True)
class Converted:
    """An official state dict under our names, with the component that it fits."""

    group: str  # the config group of its component
    component: str
    keywords: Mapping[str, Any]  # the constructor's
    state: Mapping[str, Tensor]
    latent_stats: LatentStats | None = None  # of a tokenizer whose authors state them


def families() -> list[ModuleType]:
    """The key maps of this package: each has `ENTRIES` by name and `convert(name, state, settings)`."""
    return [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if module.name not in OTHER_MODULES
    ]


def catalog() -> dict[str, Entry]:
    """Every official model, by name."""
    return {name: entry for family in families() for name, entry in family.ENTRIES.items()}


def entry(name: str, kind: Kind | None = None) -> Entry:
    """One official model, of this kind if one is given. Raises ValueError for an unknown name."""
    known = {other: entry for other, entry in catalog().items() if kind in (None, entry.kind)}
    if name not in known:
        some = ", ".join(sorted(known)[:MANY]) + (", ..." if len(known) > MANY else "")
        raise ValueError(
            f"There is no official {kind or 'model'} named {name!r:.80}.{did_you_mean(name, sorted(known))} "
            f"Known: {some} (ldbench.list_official() has all {len(known)})."
        )
    return known[name]


def convert(name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Converted:
    """An official state dict under our names; `settings`: the content of the config.json in its folder.

    Raises ValueError for tensors that are missing or unknown, and for settings that contradict them.
    """
    entry(name)
    state = strip_prefixes(state)
    empty = [key for key, value in state.items() if 0 in value.shape]
    if empty:
        raise ValueError(
            f"{empty[0][:80]} has the shape {tuple(state[empty[0]].shape)}, without any element. Copy the file again."
        )
    return family_of(name).convert(name, state, settings)


def family_of(name: str) -> Any:
    """The key map that has a model: a module with `ENTRIES`, `convert`, and perhaps `latent_stats`."""
    return next(family for family in families() if name in family.ENTRIES)


def validate_keys(name: str, entry: Entry, *, missing: Set[str], unknown: Set[str]) -> None:
    """Raises ValueError naming the first tensors of a checkpoint that are missing or unknown, if any."""
    faults = [(what, sorted(keys)) for what, keys in (("missing", missing), ("unknown", unknown)) if keys]
    messages = [f"{what} {', '.join(keys[:3])}{', ...' if keys[3:] else ''}" for what, keys in faults]
    if messages:
        raise ValueError(f"These tensors are no {name}: {'; '.join(messages)}. Expected {entry.source}'s checkpoint.")


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """The number of different blocks under a prefix, at least 1."""
    numbers = {key.removeprefix(f"{prefix}.").split(".")[0] for key in state if key.startswith(f"{prefix}.")}
    return max(1, sum(number.isdecimal() for number in numbers))


def shape(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor. Raises ValueError unless it has this many dimensions."""
    sizes = tuple(state[key].shape)
    if len(sizes) != dimensions:
        raise ValueError(f"{key} has the shape {sizes}. Expected {dimensions} dimensions.")
    return sizes


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the key prefixes of DistributedDataParallel and torch.compile, in any order."""
    stripped = {}
    for key, value in state.items():
        while key.startswith(("module.", "_orig_mod.")):
            key = key.partition(".")[2]
        stripped[key] = value
    return stripped


def convert_transformer(
    name: str,
    state: Mapping[str, Tensor],  # without prefixes, and without tables other than `pos_embed`
    # of them, `input_size` (map side or sequence length), `num_classes`, `num_heads` are read
    settings: Mapping[str, Any],
    *,
    sequence: bool,  # whether the latent has no grid
    nominal_size: int,  # the default of `input_size` if it cannot be inferred
    keeps_variance: bool,  # whether outputs beyond C channels are kept
    feedforward: tuple[str, str] = ("mlp.fc1", "mlp.fc2"),  # the layers of a block's position-wise network
    norms: Iterable[str] = (),  # layers with a weight and no bias
    num_tokens: int | None = None,  # T, from another table, if there is no `pos_embed`
    head_dim: int | None = None,  # from another table
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The keywords that diffusion transformers share, inferred from the tensors, and the state dict under our names.

    `pos_embed` is computed here, and must agree with one in the file. All labels but the last are classes, and the last
    is the null class, unless there is only one label or `num_classes` differs. Raises ValueError for anything missing,
    unknown or contradictory.
    """
    from ldbench.core.latent import LatentSpec
    from ldbench.layers.patches import LatentPatches

    state = dict(state)
    table = state.pop("pos_embed", None)
    depth = count_blocks(state, "blocks")
    embed = "x_embedder" if sequence else "x_embedder.proj"
    expected = expect_transformer(embed, depth, feedforward, norms, state)
    validate_keys(name, entry(name), missing=expected - state.keys(), unknown=state.keys() - expected)

    width, channels, *kernel = shape(state, f"{embed}.weight", 2 if sequence else 4)
    patch_size = kernel[0] if kernel else 1
    if table is not None:
        num_tokens = shape({"pos_embed": table}, "pos_embed", 3)[1]
    size = get_count(settings, "input_size", nominal_size)
    if num_tokens is not None:
        size = patch_size * (num_tokens if sequence else math.isqrt(num_tokens))
        validate_setting(settings, "input_size", size)
    latent = LatentSpec(size, channels) if sequence else LatentSpec(size * size, channels, (size, size))
    patches = LatentPatches(latent, patch_size)
    if table is not None:
        validate_table("pos_embed", table, patches.positions(width))

    rows = shape(state, "final_layer.linear.weight", 2)[0]
    outputs = patches.positions_per_token * channels
    if rows not in (outputs, 2 * outputs) or shape(state, "final_layer.linear.bias", 1) != (rows,):
        raise ValueError(
            f"final_layer.linear has {rows} rows. Expected {outputs} for {channels} channels, or twice as many."
        )
    if not keeps_variance:
        # the rows of each position in a patch: those of the prediction, then those of the variance
        for key in ("final_layer.linear.weight", "final_layer.linear.bias"):
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
        "class_std": 0.02,  # official; only for initialization
        "checkpointing": False,
    }
    return keywords, {rename(key, TRANSFORMER, IN_A_BLOCK): value for key, value in state.items()}


def expect_transformer(
    embed: str, depth: int, feedforward: Iterable[str], norms: Iterable[str], state: Mapping[str, Tensor]
) -> set[str]:
    """The names of all tensors of a diffusion transformer except tables; all blocks have a QK norm if the first has."""
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
    """The number of classes: all labels but the last, the null class, or all if there is only one or by config.json."""
    num_classes = get_count(settings, "num_classes", max(1, num_labels - 1))
    if num_labels not in (num_classes, num_classes + 1):
        raise ValueError(
            f"config.json has num_classes {num_classes}, but the tensors have {num_labels} labels. "
            "They belong to different models."
        )
    return num_classes


def count_heads(
    name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any], width: int, head_dim: int | None
) -> int:
    """The number of heads: by the head width if a tensor shows it, from config.json, or from the official size."""
    if Q_NORM in state:
        head_dim = shape(state, Q_NORM, 1)[0]
    if head_dim is not None:
        validate_setting(settings, "num_heads", width // head_dim)
        return width // head_dim
    if "num_heads" not in settings and width not in HEADS:
        raise ValueError(
            f"The heads of this {name} cannot be inferred: no official model has its width {width}. "
            "Set num_heads in a config.json."
        )
    return get_count(settings, "num_heads", HEADS.get(width, 1))


def get_count(settings: Mapping[str, Any], key: str, default: int) -> int:
    """An integer setting of a config.json, or the default. Raises ValueError for anything else."""
    value = settings.get(key, default)
    if type(value) is not int or not 1 <= value <= MAX_COUNT:
        raise ValueError(f"config.json has {key} {ascii(value)[:60]}. Expected a whole number from 1 to {MAX_COUNT}.")
    return value


def get_number(settings: Mapping[str, Any], key: str, default: float) -> float:
    """A setting of a config.json that is above zero, or the default. Raises ValueError for anything else."""
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"config.json has {key} {ascii(value)[:60]}. Expected a number above zero.")
    return float(value)


def validate_setting(settings: Mapping[str, Any], key: str, inferred: Any) -> None:
    """Raises ValueError if a config.json has another value than the one inferred from the tensors."""
    if settings.get(key, inferred) != inferred:
        raise ValueError(
            f"config.json has {key} {settings[key]}, but the tensors have {inferred}. They belong to different models."
        )


def validate_table(key: str, table: Tensor, expected: Tensor) -> None:
    """Raises ValueError if a fixed table in a file differs from the one computed here."""
    if table.shape != expected.shape:
        raise ValueError(f"{key} has the shape {tuple(table.shape)}. Expected {tuple(expected.shape)}.")
    difference = float((table.float() - expected).abs().max())
    if not difference <= TABLE_TOLERANCE:
        raise ValueError(
            f"{key} differs by {difference:.1e} from the expected fixed table. Learned positions are not supported."
        )


def rename(key: str, prefixes: Mapping[str, str], inside: Mapping[str, str] | None = None) -> str:
    """Our name of one of their tensors: the longest matching prefix is replaced, then the parts in `inside`."""
    prefix = max((theirs for theirs in prefixes if key == theirs or key.startswith(f"{theirs}.")), key=len)
    name = prefixes[prefix] + key.removeprefix(prefix)
    for theirs, ours in (inside or {}).items():
        name = name.replace(theirs, ours)
    return name


def swiglu_ratio(hidden: int, width: int) -> float:
    """The mlp_ratio of which two thirds are `hidden` units; an integer if possible, as officially (4)."""
    from ldbench.layers.modulation import swiglu_hidden

    sizes = [size for size in range(3 * hidden // 2, 3 * hidden // 2 + 3) if swiglu_hidden(size) == hidden]
    return next((size for size in sizes if size % width == 0), sizes[0]) / width
