"""Reference vectors of the official code: which cases exist, by kind, and how an output is compared with its reference.

A case is an entry of a folder's `index.json` and an `.npz` of inputs and outputs in the same folder. Its kind is the
prefix of its name, and the test of a kind runs on every case of it. Every number (sizes, step counts, shifts, ratios,
variants) is read from the case: its `config`, the shapes of its arrays, or the names of its outputs
(`euler|shift0.3`). Numbers found in none of them are typed in the test, with their source.

If the environment variable LDBENCH_PARITY names a folder, only that folder is searched, and a kind without a case in it
fails: `LDBENCH_PARITY=DIR make test ARGS="-m parity"` runs any set of vectors of this format. Otherwise the cases of
`data/` in this folder run (those that are small enough for the repository), and those of `../shared/parity`, relative
to the repository's root, if that folder exists.
"""

import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.recipe import draw, fill
from torch import Tensor

from ldbench import official

VARIABLE = "LDBENCH_PARITY"
GIVEN = os.environ.get(VARIABLE)
HERE = Path(__file__).parent
FOLDERS = (HERE / "data", HERE.parents[1].parent / "shared" / "parity")
REPORTED = "parity of "  # prefix of a property of a test's report: [case, relative error, tolerance, output]
SLOW = 30e6  # parameters from which a case is slow, unless it is the first of its kind
LARGE = 3 * 200**2  # and numbers of an input

KINDS = (  # prefixes of the names of cases; the longest that fits is a case's kind
    "ddpm_losses",
    "ddpm_respacing",
    "ddpm_sampling",
    "ddpm_tables",
    "dit_",
    "ditdh_",
    "latent_normalisation",
    "lightning_loss",
    "lightning_ode",
    "lightning_time_grid",
    "lightningdit_",
    "lpips",
    "maetok_",
    "maetok_gan_terms",
    "maetok_hog",
    "maetok_mask_ratio",
    "maetok_rope",
    "maetok_sit_",
    "maetok_sit_loss",
    "maetok_sit_samplers",
    "maetok_train_forward",
    "patchgan",
    "sit_",
    "sit_likelihood",
    "sit_ode",
    "sit_ode_dopri5",
    "sit_sde",
    "sit_transport",
    "softvq_",
    "vavae_",
    "vavae_losses",
    "vavae_vf_terms",
    "vmae_encode_decode",
    "vmae_pos_embed",
    "vmae_robustness",
    "vmae_stage1_forward",
    "vmae_stage3_forward",
    "vmae_weight_decay_groups",
)
NOT_COVERED: tuple[str, ...] = ()  # kinds without a test, each with a comment on why
TOO_LARGE = (  # cases that this repository does not hold
    "dit_s_2",
    "dit_xl_2",
    "lightningdit_b_1_f16d32",
    "lightningdit_b_1_f8d16_qknorm",
    "lightningdit_xl_1_f16d32",
    "maetok_sit_b_1",
    "sit_b_2",
    "vavae_f16d32_256x256",
    "vavae_f16d32_64x96",
    "vmae_encode_decode_128",
    "vmae_encode_decode_256",
)


@dataclass(frozen=True)
class Case:
    """One set of inputs and outputs of the official code."""

    facts: Mapping[str, Any]  # its entry of index.json
    folder: Path
    record_property: Callable[[str, object], None] = lambda name, value: None
    compared: set[str] = field(default_factory=set)  # names of the outputs that a test has compared

    @property
    def name(self) -> str:
        return self.facts["case"]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.facts["config"]

    @property
    def tolerance(self) -> float:
        return self.facts["tolerance"]["rel"]

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / self.facts["file"]) as file:
            return dict(file)

    def official_name(self, otherwise: str) -> str:
        """The official model of the case's name prefix, or another of its family: a family shares its keys."""
        return max((name for name in official.catalog() if self.name.startswith(name)), key=len, default=otherwise)

    @functools.cached_property
    def manifest(self) -> dict[str, list[int]]:
        """State-dict key -> shape, in order; empty where the case names no file of them."""
        file = (self.facts["weights"] or {}).get("manifest_file")
        return self.read_manifest(file) if file else {}

    def read_manifest(self, file: str) -> dict[str, list[int]]:
        return json.loads((self.folder / file).read_text())

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.manifest.values())

    @property
    def is_slow(self) -> bool:
        """Whether its network has many parameters, or an input many numbers."""
        sizes = [math.prod(described.get("shape", ())) for described in self.facts["inputs"].values()]
        return self.num_parameters > SLOW or max(sizes, default=0) > LARGE

    def fill(self, key: str, shape: Sequence[int]) -> Tensor | None:
        """What the recipe makes of a tensor, from the case's seed, or None where the constructor's value is kept."""
        return fill(key, tuple(shape), self.facts["weights"]["seed"])

    def weights(self, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Tensor]:
        """Every tensor of the manifest, or of given shapes, that the recipe fills; the kept ones are the caller's."""
        filled = {key: self.fill(key, shape) for key, shape in (shapes or self.manifest).items()}
        kept = (key.partition(" ")[0] for key in self.facts["weights"]["kept"])  # "key (zeros)" in some
        assert sorted(key for key, value in filled.items() if value is None) == sorted(kept)
        return {key: value for key, value in filled.items() if value is not None}

    def input(self, name: str) -> Tensor:
        """An input: its stored copy, or drawn from its seed. The recipe must agree with a copy up to tanh's last bit.

        Inputs of the kinds `value` and `derived` have no recipe.
        """
        described = self.facts["inputs"][name]
        if described["kind"] in ("value", "derived"):
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

    def outputs(self, pattern: str) -> Iterator[tuple[str, ...]]:
        """Every output whose whole name matches a pattern, with the pattern's groups. Fails without one."""
        found = [match for match in (re.fullmatch(pattern, name) for name in self.facts["outputs"]) if match]
        assert found, f"{self.name} has no output like {pattern}"
        return ((match[0], *match.groups()) for match in found)

    def errors(self, output: str, actual: Tensor) -> np.ndarray:
        """The deviations from the stored elements, relative to the output's scale; infinite for unequal integers."""
        self.compared.add(output)
        facts, stored = self.facts["outputs"][output], self.arrays[output]
        assert list(actual.shape) == facts["shape"], (
            f"{self.name}: {output} has shape {list(actual.shape)}, expected {facts['shape']}"
        )
        full = actual.detach().cpu().numpy()
        given = full.ravel()[:: facts["stride"]] if facts["stored"] == "strided" else full
        if np.issubdtype(stored.dtype, np.integer):
            return np.where(given == stored, 0.0, math.inf)
        return np.abs(given.astype(np.float64) - stored) / facts["scale"]

    def error(self, output: str, actual: Tensor) -> float:
        """The largest deviation from the stored elements, mean and standard deviation, relative to the scale."""
        worst, facts = [self.errors(output, actual).max()], self.facts["outputs"][output]
        if "stats" in facts and actual.is_floating_point():
            full, stats = actual.detach().cpu().numpy(), facts["stats"]
            moments = ((full.mean(dtype=np.float64), stats["mean"]), (full.std(dtype=np.float64), stats["std"]))
            worst += [abs(found - expected) / facts["scale"] for found, expected in moments]
        return float(np.max(worst))

    def check(self, output: str, actual: Tensor, *, bound: float | None = None) -> None:
        """Fails if an output deviates more than the case or `bound` allows, and adds its error to the test's report."""
        error, bound = self.error(output, actual), self.tolerance if bound is None else bound
        self.record_property(f"{REPORTED}{self.name}/{output}", [self.name, error, bound, output])
        assert error <= bound, f"{self.name}: {output} is off by {error:.2e} of its scale, and {bound:.0e} is allowed"


def read_cases(folders: Sequence[Path]) -> list[Case]:
    """Every case of some folders, in the order of their indices; the first folder wins for equal names."""
    found: dict[str, Case] = {}
    for index in (folder / "index.json" for folder in folders):
        for facts in json.loads(index.read_text())["cases"] if index.is_file() else ():
            found.setdefault(facts["case"], Case(facts, index.parent))
    return list(found.values())


CASES = read_cases([Path(GIVEN)] if GIVEN else FOLDERS)


def kind_of(name: str) -> str | None:
    """The longest known prefix of a case's name; None where there is none."""
    return max((kind for kind in (*KINDS, *NOT_COVERED) if name.startswith(kind)), key=len, default=None)


def cases_of(kind: str) -> list[Case]:
    """All existing cases of a kind."""
    assert kind in KINDS, f"{kind} is no kind of case"
    return [case for case in CASES if kind_of(case.name) == kind]


def explain_absence(kind: str) -> str:
    """Why no case of a kind is here, and what to do."""
    if GIVEN:
        return f"{VARIABLE}={GIVEN} has no case {kind}*. Its index.json needs at least one case of each kind."
    return f"No case {kind}* is here: all are too large for this repository. Set {VARIABLE} to a folder that has one."


def each_case(kind: str, *, only: tuple[str, ...] | None = None, besides: tuple[str, ...] = ()) -> Callable:
    """Runs a test on every case of a kind, and fails it where an output of the case has not been compared.

    `only` and `besides` are prefixes of outputs, if several tests share a kind: those a test covers (`()`: none), and
    those that another one does. Intermediate outputs need not be compared.
    """

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def complete(**fixtures: Any) -> None:
            test(**fixtures)
            case = fixtures["case"]
            names = [name for name, facts in case.facts["outputs"].items() if not facts.get("intermediate")]
            expected = [
                name for name in names if (only is None or name.startswith(only)) and not name.startswith(besides)
            ]
            left = [name for name in expected if name not in case.compared]
            assert not left, f"{case.name}: {len(left)} outputs were not compared: {', '.join(left[:5])}"

        return pytest.mark.parametrize("case", list_parameters(kind), indirect=True)(complete)

    return decorate


def list_parameters(kind: str) -> list[Any]:
    """A kind's cases as a test's parameters; without any, the kind itself, which is skipped unless a folder is set."""
    found = cases_of(kind)
    if not found:
        return [pytest.param(kind, id=kind, marks=[] if GIVEN else pytest.mark.skip(reason=explain_absence(kind)))]
    slow = [case is not found[0] and case.is_slow for case in found]
    return [
        pytest.param(case, id=case.name, marks=pytest.mark.slow if late else [])
        for case, late in zip(found, slow, strict=True)
    ]
