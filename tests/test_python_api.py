"""docs/python-api.md: its examples run, one after the other, and leave behind what the page says."""

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import PAGES, blocks

PAGE = blocks(PAGES["docs/python-api.md"], "python")
TRAINS = '"digits", labels='  # in an example that trains the digits' feature network first


def run(examples: list[str]) -> dict[str, Any]:
    """The names that the examples define."""
    names: dict[str, Any] = {"__name__": "examples"}
    for number, example in enumerate(examples):
        exec(compile(example, f"example {number}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@pytest.mark.trains
def test_the_examples_run(tmp_path: Path) -> None:
    names = run([example for example in PAGE if TRAINS not in example])
    assert names["smoothness"]["smoothness/decoder/lipschitz"].value > 0
    assert 0 < names["probe"]["probe/accuracy"].value <= 1
    assert names["pairs"].keys() == {"psnr", "ssim"}
    assert names["pairs"]["psnr"].value == pytest.approx(34, abs=1)  # of noise of 0.02: -20 log10(0.02)
    assert len(list(Path("records").glob("reconstruct-*.json"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"records"}


@pytest.mark.trains
@pytest.mark.slow
def test_the_example_with_the_features_of_the_digits_runs(tmp_path: Path) -> None:
    (example,) = [example for example in PAGE if TRAINS in example]
    assert "kid_digits_of_heldout" in run([*PAGE[:1], example])["distances"]
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts"}
