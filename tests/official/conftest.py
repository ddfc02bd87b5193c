"""Fixtures of official diffusion transformers: small state dicts in their layout, and manifests of the large ones."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ldbench import official
from ldbench.artifacts import store, weights
from ldbench.config.compose import Registry
from ldbench.core.backbone import Backbone
from ldbench.layers.position import sincos_1d, sincos_2d
from ldbench.layers.rotary import grid_rotations

MANIFESTS = Path(__file__).parents[1] / "parity" / "data" / "manifests"
WIDTH, HEADS, CHANNELS, SIDE, TOKENS = 24, 2, 3, 4, 6


@pytest.fixture
def transformer_state() -> Callable[..., dict[str, Tensor]]:
    """A diffusion transformer of width 24 and 2 heads in its official layout, on a 4 x 4 map or 6 tokens."""
    return make_state


@pytest.fixture
def convert_and_build() -> Callable[..., Backbone]:
    """The backbone of an official state dict, a checkpoint or a file."""

    def build(name: str, source: Any, settings: Mapping[str, Any] | None = None) -> Backbone:
        found = official.convert(
            name, weights.read_weights(source, averaged=True), {"num_heads": HEADS} if settings is None else settings
        )
        return store.build(store.Blueprint(found.group, found.component, found.keywords), found.state)

    return build


@pytest.fixture
def import_manifest() -> Callable[[str, str], Mapping[str, Any]]:
    """Imports tensors without content of the shapes in a manifest, and gives the keywords."""

    def import_(name: str, manifest: str) -> Mapping[str, Any]:
        found = official.convert(name, meta_state_of(manifest), {})
        with torch.device("meta"):
            backbone = Registry().component(found.group, found.component)(**store.build_keywords(found.keywords))
        store.validate_state(backbone, found.state)
        return found.keywords

    return import_


@pytest.fixture
def meta_state() -> Callable[[str], dict[str, Tensor]]:
    """Tensors without content in the shapes of a manifest, with the tables that are fixed."""
    return meta_state_of


@pytest.fixture
def manifest_state() -> Callable[[str], dict[str, Tensor]]:
    """Small random numbers in the shapes of a manifest, with the tables that are fixed."""

    def make(manifest: str) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(0)
        state = {key: 0.02 * torch.randn(shape, generator=rng) for key, shape in shapes_of(manifest).items()}
        return state | (tables(state) if "pos_embed" in state else {})

    return make


def shapes_of(manifest: str) -> dict[str, list[int]]:
    """The shapes of a whole official state dict by name."""
    return json.loads((MANIFESTS / f"{manifest}.json").read_text())


def meta_state_of(manifest: str) -> dict[str, Tensor]:
    """The state dict that `meta_state` hands out."""
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes_of(manifest).items()}
    return state | (tables(state) if "x_embedder.proj.weight" in state or "x_embedder.weight" in state else {})


def tables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The fixed tables of a state dict, with content."""
    _, num_tokens, width = state["pos_embed"].shape
    side = round(num_tokens**0.5)
    if state.keys() & {"x_embedder.weight"}:
        return {"pos_embed": sincos_1d(num_tokens, width=width)}
    found = {"pos_embed": sincos_2d((side, side), width=width)}
    for rope in ("feat_rope", "enc_feat_rope", "dec_feat_rope"):
        if f"{rope}.freqs_cos" in state:
            turns = grid_rotations((side, side), head_dim=state[f"{rope}.freqs_cos"].shape[1], theta=10000.0)
            cos, sin = (table[0].repeat_interleave(2, dim=-1) for table in turns)
            found |= {f"{rope}.freqs_cos": cos, f"{rope}.freqs_sin": sin}
    return found


def make_state(
    *,
    sequence: bool = False,
    patch: int = 2,
    depth: int = 2,
    labels: int = 6,
    outputs: int = 2 * CHANNELS,
    lightning: bool = False,  # RMSNorm, SwiGLU and rotary tables
    qk_norm: bool = False,
    shifts: bool = True,
) -> dict[str, Tensor]:
    """The state dict that `transformer_state` hands out."""
    layers: dict[str, tuple[int, ...]] = {"t_embedder.mlp.0": (WIDTH, 256), "t_embedder.mlp.2": (WIDTH, WIDTH)}
    layers |= {"x_embedder": (WIDTH, CHANNELS)} if sequence else {"x_embedder.proj": (WIDTH, CHANNELS, patch, patch)}
    layers |= {
        "final_layer.linear": ((1 if sequence else patch * patch) * outputs, WIDTH),
        "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    }
    bare = {"y_embedder.embedding_table": (labels, WIDTH)} | ({"final_layer.norm_final": (WIDTH,)} if lightning else {})
    for block in (f"blocks.{i}" for i in range(depth)):
        layers |= {f"{block}.attn.qkv": (3 * WIDTH, WIDTH), f"{block}.attn.proj": (WIDTH, WIDTH)}
        layers |= {f"{block}.adaLN_modulation.1": ((6 if shifts else 4) * WIDTH, WIDTH)}
        if lightning:
            layers |= {f"{block}.mlp.w12": (128, WIDTH), f"{block}.mlp.w3": (WIDTH, 64)}
            bare |= {f"{block}.norm1": (WIDTH,), f"{block}.norm2": (WIDTH,)}
        else:
            layers |= {f"{block}.mlp.fc1": (4 * WIDTH, WIDTH), f"{block}.mlp.fc2": (WIDTH, 4 * WIDTH)}
        if qk_norm:
            head = (WIDTH // HEADS,)
            (bare if lightning else layers).update({f"{block}.attn.q_norm": head, f"{block}.attn.k_norm": head})
    shapes = {
        f"{layer}.{kind}": shape if kind == "weight" else shape[:1]
        for layer, shape in layers.items()
        for kind in ("weight", "bias")
    }
    shapes |= {f"{layer}.weight": shape for layer, shape in bare.items()}
    rng = torch.Generator().manual_seed(0)
    state = {key: 0.2 * torch.randn(shape, generator=rng) for key, shape in shapes.items()}
    empty = {"pos_embed": torch.empty(1, TOKENS if sequence else (SIDE // patch) ** 2, WIDTH)}
    if lightning:
        empty |= dict.fromkeys(
            ("feat_rope.freqs_cos", "feat_rope.freqs_sin"), torch.empty((SIDE // patch) ** 2, WIDTH // HEADS)
        )
    return state | tables(state | empty)
