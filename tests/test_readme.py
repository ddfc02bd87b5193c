"""The README tells the truth: its overrides compose, its paths exist, its commands are the Makefile's."""

import re
from pathlib import Path

import pytest

import ldbench

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TABLE = README.split("## Changing something")[1].split("A mistake is answered")[0]
SNIPPETS = [
    snippet
    for row in TABLE.splitlines()
    if row.startswith("|")
    for snippet in re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1])
]
OVERRIDES = [s for s in SNIPPETS if re.match(r"^[~+]?[a-z_./@]+=|^~", s)]


@pytest.mark.parametrize("override", OVERRIDES)
def test_every_override_composes(override: str) -> None:
    words = override.split(" ")
    if any(word.startswith("logger.") for word in words):
        words.insert(0, "logger=wandb")
    assert ldbench.compose("train", words)


def test_there_are_overrides_to_check() -> None:
    assert len(OVERRIDES) >= 15


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", README)) - {"train"} | {"train", "test"}
    assert named <= targets


def test_every_file_it_names_exists() -> None:
    named = set(re.findall(r"`((?:tests|conf|experiments|src)/[a-z_./]+)`", README))
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_mistake_it_shows_is_the_one_that_is_told(tmp_path: Path) -> None:
    from ldbench.pipeline.tokenizer_plan import plan_tokenizer

    with pytest.raises(ValueError, match="does not divide") as told:
        plan_tokenizer(
            ldbench.compose("train", ["tokenizer=vmae", "tokenizer.model.patch_size=7", f"paths.root={tmp_path}"])
        )
    assert str(told.value) in README
