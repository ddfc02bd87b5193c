"""The package's structure: six levels of imports that point down, and one module for each third-party package."""

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from ldbench.config.compose import COMPONENT_GROUPS, Registry

SOURCE = Path(__file__).parents[1] / "src" / "ldbench"
FILES = sorted(SOURCE.rglob("*.py"))

LEVELS = {  # a package or root module imports lower levels only
    6: (
        *("train", "run", "prepare", "leaderboard", "doctor", "hub", "new", "completion"),
        *("cli", "weights", "__init__", "__main__"),
    ),
    5: ("pipeline",),
    4: ("training", "jobs", "official", "checks", "sweeps"),
    3: ("tokenizers", "backbones", "teachers", "losses", "analysis", "metrics", "artifacts", "tracking"),
    2: ("config", "layers", "data", "objectives", "sampling", "results"),
    1: ("core", "io", "runtime"),
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names}
# what is imported of one's own level besides oneself
SAME_LEVEL = {"core": {"io", "runtime"}, **{key: {"cli"} for key in LEVELS[6]}, "__init__": {"hub"}}
SAME_LEVEL["completion"] = {"__main__", "new"}  # whose words it completes
PLUGINS = (
    "tokenizers",
    "backbones",
    "teachers",
    "losses",
    "objectives",
    "sampling",
    "metrics",
    "data",
    "analysis",
    "official",
    "layers",
)
NO_PLUGINS = (  # these stand among plug-ins, and no yaml names them
    *("ldbench.data.latents.", "ldbench.data.samples.", "ldbench.data.checks.", "ldbench.data.layouts."),
    *("ldbench.data.original_images.", "ldbench.data.written."),
    *("ldbench.metrics.feature_set.", "ldbench.metrics.moments.", "ldbench.metrics.adm_npz."),
)
DOORS = {  # third party -> the packages and root modules that may import it
    "hydra": {"config", "cli", "sweeps"},
    "omegaconf": {"config", "sweeps", "pipeline", "training", "tracking", "official", *LEVELS[6]},
    "lightning": {"training", "tracking"},
    "wandb": {"tracking"},
    "timm": {"teachers", "metrics", "layers"},
    "matplotlib": {"results", "analysis", "jobs"},
    "huggingface_hub": {"artifacts", "official"},
    "torchmetrics": {"metrics"},
    "torch_fidelity": {"metrics"},
    "fsspec": {"io"},
    "datasets": {"data", "jobs"},
    "sklearn": {"data", "analysis", "metrics"},
}


def package(path: Path) -> str:
    """The package that a file is of, or the root module that it is."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> set[str]:
    """Every dotted name that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_file_stands_on_a_level() -> None:
    assert {package(path) for path in FILES} == LEVEL.keys()


def test_imports_point_down() -> None:
    wrong = []
    for path in FILES:
        here = package(path)
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("ldbench.")} & LEVEL.keys()
        wrong += [
            f"{path.relative_to(SOURCE)} imports {other}"
            for other in sorted(ours - {here})
            if LEVEL[other] >= LEVEL[here] and other not in SAME_LEVEL.get(here, ())
        ]
    assert not wrong


def test_the_root_holds_entry_points_only() -> None:
    assert {path.stem for path in SOURCE.glob("*.py")} == set(LEVELS[6])


def test_third_parties_come_through_their_door() -> None:
    outside = []
    for path in FILES:
        used = {name.split(".")[0] for name in imports(path)}
        outside += [
            f"{path.relative_to(SOURCE)} imports {party}"
            for party in used & DOORS.keys()
            if package(path) not in DOORS[party]
        ]
    assert not outside


def test_figures_leave_the_backend_of_a_notebook_alone() -> None:
    assert not [path.name for path in FILES if any(name.startswith("matplotlib.pyplot") for name in imports(path))]


def test_plug_ins_do_not_import_each_other() -> None:
    plugged = {target.rpartition(".")[0] for group in COMPONENT_GROUPS for target in Registry().targets(group).values()}
    plugged = {module for module in plugged if module.startswith("ldbench.")}
    assert len(plugged) >= 6
    for path in FILES:
        module = "ldbench." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if module in plugged:
            siblings = {name for name in imports(path) for other in plugged - {module} if name.startswith(f"{other}.")}
            assert not siblings, f"{module} imports its sibling: {siblings}"


def test_code_imports_no_plug_in_by_name() -> None:
    for path in FILES:
        if (LEVEL[package(path)] >= 4 and package(path) != "official") or package(path) in ("artifacts", "config"):
            found = {
                name
                for name in imports(path)
                if name.startswith(tuple(f"ldbench.{group}." for group in (*PLUGINS[:4], "metrics", "data")))
            }
            found = {name for name in found if not f"{name}.".startswith(NO_PLUGINS)}
            assert not found, f"{path.name} imports {found}: yaml names the plug-ins"


def test_what_is_no_plug_in_is_named_by_no_yaml() -> None:
    assert not [
        target
        for group in COMPONENT_GROUPS
        for target in Registry().targets(group).values()
        if target.startswith(NO_PLUGINS)
    ]


def test_no_package_has_a_drawer() -> None:
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "misc", "common")]


LISTING = "import ldbench; ldbench.list_tokenizers(); ldbench.list_generators(); ldbench.list_official()"


def test_importing_and_listing_load_no_torch() -> None:
    loaded = "print([name for name in ('torch', 'lightning', 'wandb', 'sklearn') if name in sys.modules])"
    statements = [
        "import sys, ldbench",
        LISTING,
        "import ldbench.train",
        "import ldbench.leaderboard",
        "import ldbench.hub",
    ]
    script = "\n".join(f"{statement}\n{loaded}" for statement in statements)  # one process: each adds to those before
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"] * len(statements)


def test_a_file_says_what_it_is_and_public_things_say_what_they_return() -> None:
    for path in FILES:
        tree = parsed(path)
        assert ast.get_docstring(tree), f"{path} has no first line"
        public = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        silent = [node.name for node in public if not ast.get_docstring(node) and node.name != "main"]
        assert not silent, f"{path.name}: {silent} have no docstring"
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in calls or package(path) in ("cli", "__main__"), f"{path.name} prints"


def test_names_of_ours_that_tests_use_exist() -> None:
    """Tests of GPUs, faults and speed are seldom run: a name that is no more would be noticed late."""
    missing = []
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        modules = {}
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ldbench"):
                for alias in node.names:
                    try:
                        found = resolve(node.module, alias.name)
                    except ImportError:
                        missing.append(f"{path.name}: {node.module}.{alias.name}")
                        continue
                    if isinstance(found, ModuleType):
                        modules[alias.asname or alias.name] = found
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                module = modules[node.value.id]
                if isinstance(node.ctx, ast.Load) and not hasattr(module, node.attr):
                    missing.append(f"{path.name}: {module.__name__}.{node.attr}")
    assert not missing


def resolve(module: str | None, name: str) -> object:
    """What `from module import name` gives."""
    parent = importlib.import_module(module or "")
    return getattr(parent, name) if hasattr(parent, name) else importlib.import_module(f"{module}.{name}")


def test_what_the_tests_of_faults_wait_for_is_printed() -> None:
    """They run on demand, so that a message changed elsewhere would make them wait for nothing."""
    from tests.faults.test_two_at_once import RIVALS

    source = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    phrases = re.findall(r'\bdoing(?:: str \| None)? ?= ?"([^"]+)"', source)
    assert "Another process is %s" in source
    for rivals in RIVALS.values():
        assert any(rivals.waits.startswith(f"{phrase} ") for phrase in phrases), rivals.waits
    assert "choose another folder with paths.root=DIR." in source
