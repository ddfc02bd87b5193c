"""Golden vectors of the official code: their inputs, the recipe that fills a model's weights, and the rule of comparison.

A case is looked for in the folder that the environment variable LDBENCH_PARITY names, in `data/` beside this file (the small ones), and in
`../shared/parity` seen from the repository's root (all of them); a case that is in none of them is skipped.
"""

import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ldbench.layers.position import sincos_2d

HERE = Path(__file__).parent
STORES = (HERE / "data", HERE.parents[1].parent / "shared" / "parity")
KEPT = {"freqs_t_x", "freqs_t_y", "freqs_cos", "freqs_sin", "weight_x", "weight_y", "gaussian_kernel"}
KEPT |= {"running_mean", "running_var", "num_batches_tracked"}
TABLES = ("pos_embed", "decoder_pos_embed")
HALVED = ("pos_embed", "latent_tokens", "latent_pos_embed", "mask_token", "cls_token")
TOLD = "parity of "  # before the name of a property of a test's report, which holds [case, relative error, tolerance, output]


@dataclass(frozen=True)
class Case:
    """One set of inputs and outputs of the official code."""

    facts: dict[str, Any]  # its entry of index.json
    store: Path
    arrays: dict[str, np.ndarray]
    record_property: Callable[[str, object], None]

    @property
    def name(self) -> str:
        return self.facts["case"]

    def manifest(self) -> dict[str, list[int]]:
        """State-dict key -> shape, in order."""
        return json.loads((self.store / self.facts["weights"]["manifest_file"]).read_text())

    def weights(self, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Tensor]:
        """Every tensor of the manifest, or of given shapes, that the recipe fills; the kept ones are the caller's."""
        seed = self.facts["weights"]["seed"]
        filled = {key: fill(key, tuple(shape), seed) for key, shape in (shapes or self.manifest()).items()}
        assert sorted(key for key, value in filled.items() if value is None) == sorted(self.facts["weights"]["kept"])
        return {key: value for key, value in filled.items() if value is not None}

    def vmae_weights(self) -> dict[str, Tensor]:
        """The official state dict of a VMAE: the recipe's tensors and the fixed tables."""
        shapes = self.manifest()
        side = math.isqrt(shapes["pos_embed"][1])
        tables = {key: sincos_2d((side, side), width=shapes[key][2], dtype=torch.float32) for key in TABLES}
        filled = {**self.weights(), **tables}
        return {key: filled[key] for key in shapes}

    def input(self, name: str) -> Tensor:
        """An input: its stored copy, with which the recipe must agree (tanh differs in its last bit between machines), or drawn from its seed.

        Inputs of the kind `value` have no recipe.
        """
        described = self.facts["inputs"][name]
        if described["kind"] == "value":
            return (
                torch.from_numpy(self.arrays[f"in.{name}"]) if described["stored"] else torch.tensor(described["value"])
            )
        value = draw(described["kind"], described["seed"], tuple(described["shape"]))
        if described["stored"]:
            stored = self.arrays[f"in.{name}"]
            assert np.allclose(value, stored, rtol=1e-6, atol=1e-6), (
                f"the recipe of {self.name}'s input {name} gives other numbers"
            )
            value = stored
        return torch.from_numpy(value)

    def error(self, output: str, actual: Tensor) -> float:
        """The worst deviation from the stored elements and from mean and deviation of the whole, relative to the scale; integers must be equal."""
        facts = self.facts["outputs"][output]
        assert list(actual.shape) == facts["shape"], (
            f"{self.name}: {output} has shape {list(actual.shape)}, expected {facts['shape']}"
        )
        full = actual.detach().cpu().numpy()
        stored = self.arrays[output]
        given = full.ravel()[:: facts["stride"]] if facts["stored"] == "strided" else full
        if np.issubdtype(stored.dtype, np.integer):
            return 0.0 if np.array_equal(given, stored) else math.inf
        deviations = [np.abs(given.astype(np.float64) - stored).max()]
        if "stats" in facts:
            deviations += [
                abs(full.mean(dtype=np.float64) - facts["stats"]["mean"]),
                abs(full.std(dtype=np.float64) - facts["stats"]["std"]),
            ]
        return float(np.max(deviations)) / facts["scale"]

    def check(self, output: str, actual: Tensor, *, bound: float | None = None) -> None:
        """Fails where an output is further off than the case allows, or than `bound`, and tells its error in the report."""
        error, bound = self.error(output, actual), self.facts["tolerance"]["rel"] if bound is None else bound
        self.record_property(f"{TOLD}{self.name}/{output}", [self.name, error, bound, output])
        assert error <= bound, f"{self.name}: {output} is off by {error:.2e} of its scale, and {bound:.0e} is allowed"


@pytest.fixture
def open_case(record_property) -> Callable[[str], Case]:
    """A case by name; a test of a case that no folder holds is skipped."""
    given = os.environ.get("LDBENCH_PARITY")
    stores = (Path(given), *STORES) if given else STORES

    def open_(name: str) -> Case:
        for store in stores:
            if not (store / "index.json").is_file():
                continue
            for facts in json.loads((store / "index.json").read_text())["cases"]:
                if facts["case"] == name:
                    with np.load(store / facts["file"]) as file:
                        return Case(facts, store, dict(file), record_property)
        pytest.skip(
            f"{name} is too large for this repository: point LDBENCH_PARITY at the folder of all reference outputs"
        )

    return open_


def fill(key: str, shape: tuple[int, ...], seed: int) -> Tensor | None:
    """The recipe's value of one tensor, or None where the constructor's is kept."""
    last = key.split(".")[-1]
    if last in KEPT or key in TABLES or "scaling_layer." in key:
        return None
    r = np.asarray(np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32).standard_normal(shape))
    fan_in = math.prod(shape[1:])
    if last in HALVED or "embedding_table" in key:
        value = 0.5 * r
    elif last == "freqs":
        value = 0.2 * r
    elif key.startswith("lin") and key[3:4].isdigit() and last == "weight":
        value = np.abs(r) / math.sqrt(fan_in)
    elif len(shape) >= 2:
        value = r / math.sqrt(fan_in)
    elif last.endswith(("weight", "gamma")):
        value = 1 + 0.1 * r
    else:
        value = 0.1 * r
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def draw(kind: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """An input of one kind, float32."""
    rng = np.random.RandomState(seed)
    if kind == "uniform":
        return rng.random_sample(shape).astype(np.float32)
    if kind == "smooth_image":
        return smooth(rng.standard_normal((*shape[:2], 6)), *shape[2:])
    if kind == "sign":
        return np.where(rng.standard_normal(shape) >= 0, 1, -1).astype(np.float32)
    normal = rng.standard_normal(shape).astype(np.float32)
    return {"normal": normal, "image": np.tanh(normal)}[kind]


def smooth(q: np.ndarray, height: int, width: int) -> np.ndarray:
    """Two plane waves and a moiré for each of the (B, C, 6) numbers."""
    q = q[..., None, None]
    i, j = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    waves = q[:, :, 1] * np.sin(2 * np.pi * (2 * i + j + q[:, :, 2])) + q[:, :, 3] * np.cos(
        2 * np.pi * (i - 3 * j + q[:, :, 4])
    )
    return np.tanh(q[:, :, 0] + waves + 0.5 * q[:, :, 5] * np.sin(40 * i * j)).astype(np.float32)


def pytest_terminal_summary(terminalreporter):
    """One line for each case: the worst error of all its outputs, next to what is allowed; read off the reports, whichever process made them."""
    reports = [
        report
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, [])
        if report.when == "call"
    ]
    found = [value for report in reports for key, value in report.user_properties if key.startswith(TOLD)]
    worst = {
        case: max((error, bound, output) for name, error, bound, output in found if name == case) for case, *_ in found
    }
    if worst:
        terminalreporter.section("parity: worst error relative to an output's scale")
    for name, (error, bound, output) in sorted(worst.items()):
        terminalreporter.write_line(f"{name:32} {error:.1e}  (allowed {bound:.0e}; {output})")
