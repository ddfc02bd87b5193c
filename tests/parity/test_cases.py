"""The reference vectors themselves: every case has a test, every kind has a case, and errors are detected."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.parity import cases
from tests.parity.cases import (
    CASES,
    GIVEN,
    HERE,
    KINDS,
    TOO_LARGE,
    VARIABLE,
    Case,
    cases_of,
    each_case,
    explain_absence,
    kind_of,
)
from tests.parity.toys import variance_toy, velocity_toy

pytestmark = pytest.mark.parity


def test_every_case_is_of_a_kind_and_has_its_file():
    unknown = [case.name for case in CASES if kind_of(case.name) is None]
    assert not unknown, (
        f"no test reads {', '.join(unknown)}: add a kind and its test, or its prefix to NOT_COVERED with the reason"
    )
    missing = [case.facts["file"] for case in CASES if not (case.folder / case.facts["file"]).is_file()]
    assert not missing, f"an index.json names {', '.join(missing)}, and no such file is beside it"


def test_every_kind_has_a_test():
    tested = {kind for file in HERE.glob("test_*.py") for kind in re.findall(r'@each_case\("(\w+)"', file.read_text())}
    assert tested == set(KINDS)


def test_every_kind_has_a_case():
    absent = sorted(set(TOO_LARGE) - {case.name for case in CASES})
    kinds = [kind for kind in KINDS if not cases_of(kind)]
    if GIVEN:
        assert not kinds, explain_absence(f"{'*, '.join(kinds)}")
    else:
        assert {kind_of(name) for name in absent} >= set(kinds)
        if absent:
            pytest.skip(
                f"{', '.join(absent)}: too large for this repository. Set {VARIABLE} to a folder that has them."
            )


def test_the_longest_prefix_is_a_cases_kind():
    assert [
        kind_of(name)
        for name in ("sit_ode_dopri5", "sit_ode", "sit_xl_2", "maetok_sit_l_1", "maetok_sit_loss", "ditdh_tiny")
    ] == [*("sit_ode_dopri5", "sit_ode", "sit_", "maetok_sit_", "maetok_sit_loss", "ditdh_")]
    assert kind_of("newcomer") is None


@pytest.mark.parametrize("given", ["elsewhere", None])
def test_a_kind_without_a_case_is_skipped_unless_a_folder_is_given(monkeypatch, given):
    monkeypatch.setattr(cases, "GIVEN", given)
    monkeypatch.setattr(cases, "CASES", [])
    (parameter,) = cases.list_parameters("sit_ode")
    assert [mark.name for mark in parameter.marks] == ([] if given else ["skip"])
    assert VARIABLE in explain_absence("sit_ode")


@pytest.fixture
def halves(tmp_path: Path) -> Case:
    """A case of four halves, as numbers and as bytes, and of something intermediate."""
    arrays = {"half": np.array([0.5, 1.0, 1.5, 2.0], dtype=np.float32), "bytes": np.array([1, 2, 3, 4])}
    np.savez(tmp_path / "halves.npz", **arrays)
    outputs = {name: {"shape": [4], "stored": "full", "scale": 2.0} for name in arrays} | {
        "mid.half": {"intermediate": True}
    }
    outputs["half"]["stats"] = {"mean": 1.25, "std": float(arrays["half"].std())}
    return Case({"case": "halves", "file": "halves.npz", "tolerance": {"rel": 1e-6}, "outputs": outputs}, tmp_path)


def test_an_error_above_the_tolerance_is_found(halves):
    half = torch.tensor([0.5, 1.0, 1.5, 2.0])
    halves.check("half", half)
    nudged = half + torch.tensor([0, 0, 4e-6, 0])
    assert halves.tolerance < halves.error("half", nudged) < 4 * halves.tolerance
    with pytest.raises(AssertionError, match=r"half is off by 2.*, and 1e-06 is allowed"):
        halves.check("half", nudged)
    halves.check("half", nudged, bound=1e-5)
    with pytest.raises(AssertionError, match="has shape"):
        halves.check("half", half.reshape(2, 2))
    halves.check("bytes", (2 * half).long())
    with pytest.raises(AssertionError, match="bytes is off by inf"):
        halves.check("bytes", (2 * half).long() + torch.tensor([0, 0, 0, 1]))


def test_an_output_that_a_test_does_not_compare_fails_it(halves):
    def compare_one(case):
        case.check("half", torch.tensor([0.5, 1.0, 1.5, 2.0]))

    each_case("sit_ode", only=("half",))(compare_one)(case=halves)
    each_case("sit_ode", besides=("bytes",))(compare_one)(case=halves)
    with pytest.raises(AssertionError, match="halves: 1 outputs were not compared: bytes"):
        each_case("sit_ode")(compare_one)(case=halves)
    with pytest.raises(AssertionError, match="no output like"):
        halves.outputs("quarter")


def test_toy_networks_are_read_from_their_formulas():
    x, t, y = torch.tensor(0.5), torch.tensor(2.0), torch.tensor(3.0)
    for text, expected in (
        ("0.4*x - 0.2*sin(3*t), t broadcast over the non-batch axes", 0.2 - 0.2 * np.sin(6)),
        ("v(x,t,y) = 0.5 x + 0.2 sin(3 t) + 0.01*y/1000, t and y broadcast", 0.25 + 0.2 * np.sin(6) + 3e-5),
        ("tanh(0.7*x) - 1e-1*sin(3*t)", np.tanh(0.35) - 0.1 * np.sin(6)),
    ):
        assert velocity_toy(text)(x, t, y).item() == pytest.approx(expected, abs=1e-6)
    found = variance_toy("concat over channels of [0.3*x + s, tanh(x + s)], s = 0.1*sin(0.01*t)")(x[None], t[None], y)
    assert found.tolist() == pytest.approx([0.15 + 0.1 * np.sin(0.02), np.tanh(0.5 + 0.1 * np.sin(0.02))])
    with pytest.raises(AssertionError, match="no test knows"):
        velocity_toy("x")
