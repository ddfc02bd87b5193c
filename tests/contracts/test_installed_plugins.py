"""A package with plug-ins, as ldbench.new writes it: installed, found by its metadata, used, pushed and loaded."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from tests.artifacts.hub_server import Hub
from tests.installing import install

from ldbench.config import installed
from ldbench.config.compose import Registry
from ldbench.new import write_package
from ldbench.pipeline import feature_networks
from ldbench.pipeline.recipe import plugin_entry


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with the plug-in `tokenizer=blocks`."""
    folder = tmp_path_factory.mktemp("plugin")
    write_package("tokenizer", "blocks", folder / "source")
    return install(folder / "source", folder / "site")


@pytest.fixture
def on_path(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture
def hub_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of commands that use the stand-in hub."""
    running = Hub()
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield {
        "HF_ENDPOINT": running.url,
        "HF_TOKEN": running.token,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    running.shutdown()
    running.server_close()


def run(
    module: str, *arguments: str, site: Path | None, cwd: Path, also: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **also}
    if site is not None:
        environment["PYTHONPATH"] = f"{site}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, "-m", f"ldbench.{module}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run_and_list_modules(*arguments: str, site: Path, cwd: Path) -> set[str]:
    """The top-level packages that `python -m ldbench.train` has imported when it ends."""
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: open('modules', 'w').write(' '.join({name.split('.')[0] for name in sys.modules})))\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "runpy.run_module('ldbench.train', run_name='__main__')\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, check=False)
    return set((cwd / "modules").read_text().split())


def test_it_is_found_by_its_metadata_and_not_imported(on_path: Path) -> None:
    (plugin,) = [plugin for plugin in installed.installed() if plugin.name == "blocks"]
    assert str(plugin) == "blocks (ldbench-blocks 0.1.0)"
    assert plugin.folder == on_path / "ldbench_blocks" / "conf"
    assert "ldbench_blocks" not in sys.modules
    assert installed.with_folders(["mine"]) == ("mine", f"file://{plugin.folder}")
    assert installed.with_folders(["mine"], ["plugins=[]"]) == ("mine",)
    assert installed.with_folders([], ["plugins=[blocks]"]) == (f"file://{plugin.folder}",)
    with pytest.raises(ValueError, match=r"plugins=\[other\] names other, and that is not installed\. Inst"):
        installed.enabled(["plugins=[other]"])


def test_only_the_packages_of_components_that_are_used_enter_a_recipe(on_path: Path) -> None:
    ours = {"_target_": "ldbench.losses.terms.KL", "weight": 1.0}
    assert plugin_entry({"model": ours}) == {}
    theirs = {"losses": [{"_target_": "ldbench_blocks.blocks.Blocks"}], "own": ours}
    assert plugin_entry({"model": ours}, theirs) == {"plugins": ["ldbench-blocks"]}


def test_the_package_of_a_feature_networks_component_enters_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Registry().option("network", "digits")
    monkeypatch.setattr(feature_networks, "packages_of", lambda node: ["theirs"])
    planned = feature_networks.plan(recipe)
    assert planned.recipe["plugins"] == ["theirs"]
    monkeypatch.undo()
    assert feature_networks.plan(recipe).digest != planned.digest


def test_a_declaration_that_names_no_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ldbench.plugins]\nodd = nowhere_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"The package odd declares the plug-in odd = 'nowhere_at_all' "):
        installed.installed()


def test_help_and_doctor_list_it_without_loading_torch(site: Path, tmp_path: Path) -> None:
    shown = run("train", "--help", site=site, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "  blocks (ldbench-blocks 0.1.0): tokenizer=blocks\n" in shown.stdout
    assert "torch" not in run_and_list_modules("--help", site=site, cwd=tmp_path)
    code = "from ldbench.checks.installation import check_plugins; print(check_plugins())"
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "blocks (ldbench-blocks 0.1.0): 1 option" in found.stdout


@pytest.mark.trains
def test_its_tokenizer_is_trained_pushed_and_loaded_where_it_is_installed_and_nowhere_else(
    site: Path, tmp_path: Path, hub_environment: dict[str, str]
) -> None:
    words = ["tokenizer=blocks", "tokenizer.stages.all.max_steps=2", "trainer.accelerator=cpu", "protocol=default"]
    done = run("train", *words, "protocol.distribution=[]", site=site, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "artifacts" / "tokenizers").glob("blocks-*")
    assert json.loads((folder / "config.json").read_text())["recipe"]["plugins"] == ["ldbench-blocks"]
    assert json.loads((folder / "manifest.json").read_text())["environment"]["packages"]["ldbench-blocks"] == "0.1.0"
    (record,) = (tmp_path / "records").glob("*.json")
    assert json.loads(record.read_text())["environment"]["packages"]["ldbench-blocks"] == "0.1.0"
    pushed = run("hub", f"push={folder}", "repo=me/blocks", site=site, cwd=tmp_path, also=hub_environment)
    assert pushed.returncode == 0, pushed.stderr
    shutil.rmtree(tmp_path / "artifacts")
    opened = ["tokenizer.path=hf://me/blocks", "tokenizer=artifact", "job=encode", "trainer.accelerator=cpu"]
    refused = run("run", *opened, "plugins=[]", site=site, cwd=tmp_path, also=hub_environment)
    assert refused.returncode == 2
    assert "There is no tokenizer named 'blocks' here" in refused.stderr
    loaded = run("run", *opened, site=site, cwd=tmp_path, also=hub_environment)
    assert loaded.returncode == 0, loaded.stderr
    assert list((tmp_path / "artifacts").rglob("manifest.json"))
