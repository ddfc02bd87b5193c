"""Official networks of the reference vectors under our names, and their guidance."""

from collections.abc import Mapping
from typing import Any

import torch
from tests.parity.cases import Case
from torch import Tensor, nn

from ldbench import official
from ldbench.artifacts import store

GUIDED = 3  # channels that DiT, SiT and LightningDiT guide, by the text (`how`) of their cases; others stay


def build(
    name: str, weights: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None, **changes: Any
) -> nn.Module:
    """An official state dict as our component, in eval mode; `changes` replace what the import infers."""
    converted = official.convert(name, weights, settings or {})
    return store.build(
        store.Blueprint(converted.group, converted.component, {**converted.keywords, **changes}), converted.state
    )


def settings_of(case: Case) -> dict[str, Any]:
    """Settings of a diffusion transformer that only the case has, and no tensor."""
    return {key: case.config[key] for key in ("num_heads", "num_classes") if key in case.config}


def guide(
    known: Tensor,  # (B, N, C) with the label
    unknown: Tensor,  # (B, N, C) without
    scale: float,
) -> Tensor:  # (2 B, N, C)
    """Both branches after the guidance of the first channels."""
    guided = unknown[..., :GUIDED] + scale * (known - unknown)[..., :GUIDED]
    return torch.cat([torch.cat([guided, own[..., GUIDED:]], dim=-1) for own in (known, unknown)])


def rotary_tables(prefix: str, side: int, head_dim: int) -> dict[str, Tensor]:
    """The fixed rotary tables of a file, position by position."""
    dim = head_dim // 2
    frequencies = 10000 ** (-torch.arange(0, dim, 2).float() / dim)
    angles = torch.stack(
        [
            torch.cat([(place * frequencies).repeat_interleave(2) for place in (i, j)])
            for i in range(side)
            for j in range(side)
        ]
    )
    return {f"{prefix}.freqs_cos": angles.cos(), f"{prefix}.freqs_sin": angles.sin()}
