"""The house stands as designed: which room may import which, and which third party has which door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ldbench import config

SOURCE = Path(__file__).parents[1] / "src" / "ldbench"
FILES = sorted(SOURCE.rglob("*.py"))

PLUGINS = {"core", "layers"}
ALLOWED = {  # room -> the rooms that it may import, besides itself
    "core": set(),
    "layers": {"core"},
    **dict.fromkeys(("tokenizers", "teachers", "losses", "backbones", "objectives", "sampling", "metrics", "data", "analysis", "official"), PLUGINS),
    "config": {"core"},
    "generator": {"core"},
    "results": {"core"},
    "huggingface": set(),
    "weights": {"core", "huggingface"},
    "artifacts": {"core", "config", "huggingface", "weights"},
    "tasks": {"core", "generator", "artifacts"},
    "jobs": {"core", "generator", "artifacts", "data", "metrics", "analysis", "sampling", "results"},
}
ABOVE = {  # these may import everything below
    *("networks", "plan", "numerics", "training", "sources", "instruments", "facts", "measuring", "measuring_records", "reporting", "pipeline"),
    *("generator_plan", "generator_training", "fitting", "tracking", "released", "cells", "starting", "trial"),
    *("sweeps", "checks", "doctor", "hub", "model_card", "entry", "train", "run", "leaderboard", "__init__", "__main__"),
}
DOORS = {  # third party -> the rooms that may import it
    "hydra": {"config", "entry", "sweeps"},
    "omegaconf": {
        "networks",
        "fitting",
        "generator_plan",
        *("measuring", "facts", "instruments"),
        "config",
        "entry",
        "run",
        "sources",
        "doctor",
        "leaderboard",
        "hub",
        "plan",
        "numerics",
        "training",
        "pipeline",
        *("cells", "released", "starting", "trial", "measuring_records", "reporting", "sweeps"),
        "train",
        "__init__",
    },
    "lightning": {"tasks"},
    "wandb": {"results"},
    "timm": {"teachers", "metrics"},
    "matplotlib": {"results", "analysis", "jobs"},
    "huggingface_hub": {"huggingface", "model_card"},
    "torchmetrics": {"metrics"},
    "torch_fidelity": {"metrics"},
    "sklearn": {"data", "analysis", "metrics"},
}

STORES = ("ldbench.data.latents.", "ldbench.data.samples.")  # these stand in the room of data, but are no plug-ins: no yaml names them


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every dotted name that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_file_stands_in_a_known_room() -> None:
    assert {room(path) for path in FILES} <= ALLOWED.keys() | ABOVE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("ldbench.")}
    allowed = ALLOWED.keys() | ABOVE if here in ABOVE else ALLOWED[here] | {here}
    assert ours <= allowed, f"{here} may not import {sorted(ours - allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_third_parties_come_through_their_door(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path)}
    outside = {party: sorted(DOORS[party]) for party in used & DOORS.keys() if room(path) not in DOORS[party]}
    assert not outside, f"{path.name} does not stand at the door of {outside}"


def test_plug_ins_do_not_import_each_other() -> None:
    plugged = {target.rpartition(".")[0] for group in config.COMPONENT_GROUPS for target in config.targets(group).values()}
    plugged = {module for module in plugged if module.startswith("ldbench.")}
    assert len(plugged) >= 6
    for path in FILES:
        module = "ldbench." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if module in plugged:
            siblings = {name for name in imports(path) for other in plugged - {module} if name.startswith(f"{other}.")}
            assert not siblings, f"{module} imports its sibling: {siblings}"


def test_code_imports_no_plug_in_by_name() -> None:
    for path in FILES:
        if room(path) in ABOVE | {"tasks", "jobs", "artifacts", "weights", "config"}:
            rooms = ("tokenizers", "backbones", "teachers", "losses", "data", "metrics")
            found = {name for name in imports(path) if name.startswith(tuple(f"ldbench.{plug}." for plug in rooms))}
            found = {name for name in found if not name.startswith(STORES)}
            assert not found, f"{path.name} imports {found}: yaml names the plug-ins"


def test_the_store_is_named_by_no_yaml() -> None:
    assert not [target for group in config.COMPONENT_GROUPS for target in config.targets(group).values() if target.startswith(STORES)]


def test_no_room_has_a_drawer() -> None:
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "misc", "common")]


LISTING = "import ldbench; ldbench.list_tokenizers(); ldbench.list_generators(); ldbench.list_official()"


@pytest.mark.parametrize("statement", ["import ldbench", LISTING, "import ldbench.train", "import ldbench.leaderboard", "import ldbench.hub"])
def test_importing_and_listing_load_no_torch(statement: str) -> None:
    script = f"{statement}\nimport sys\nprint([name for name in ('torch', 'lightning', 'wandb', 'sklearn') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_says_what_it_is_and_public_things_say_what_they_return(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no first line"
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    silent = [node.name for node in public if not ast.get_docstring(node) and node.name != "main"]
    assert not silent, f"{path.name}: {silent} have no docstring"
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "print" not in calls or room(path) in ("entry", "__main__"), f"{path.name} prints"
