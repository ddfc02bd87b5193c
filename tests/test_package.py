"""The wheel contains the config tree and runs from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ldbench.config.compose import conf_dir
from ldbench.pipeline.feature_networks import PACKAGED

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the built wheel was unpacked, as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_config_and_experiment(installed: Path) -> None:
    ours = {
        path.relative_to(conf_dir())
        for group in conf_dir().iterdir()
        for path in [*group.glob("*.yaml"), *group.glob("*/*.yaml"), group]
        if path.is_file()
    }
    theirs = {
        path.relative_to(installed / "ldbench" / "conf") for path in (installed / "ldbench" / "conf").rglob("*.yaml")
    }
    assert theirs == ours
    assert any("experiments" in path.parts for path in theirs)


def test_the_wheel_holds_the_page_and_what_is_published(installed: Path) -> None:
    networks = [f"src/ldbench/trained_networks/{path.name}" for path in PACKAGED.iterdir()]
    assert networks
    for folder in ("src/ldbench/results/page", "experiments/published", *networks):
        ours = {path.name: path.read_bytes() for path in (ROOT / folder).iterdir()}
        inside = folder.removeprefix("src/ldbench/") if folder.startswith("src") else f"conf/{folder}"
        assert {path.name: path.read_bytes() for path in (installed / "ldbench" / inside).iterdir()} == ours
        assert ours


def test_the_wheel_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    script = "import sys; from ldbench import train; from ldbench.config.compose import conf_dir\n"
    script += "print(conf_dir()); sys.argv = ['train', '--help']; train.main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=False,
    )
    assert done.stdout.splitlines()[0] == str(installed / "ldbench" / "conf")
    assert "experiments: ablation_" in done.stdout


def test_the_lock_names_versions_and_no_index() -> None:
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert len(lines) > 50
    assert all("==" in line for line in lines)
    assert not [line for line in lines if "://" in line or line.startswith("-")]


@pytest.mark.slow
def test_the_wheel_installed_in_an_empty_environment_trains_from_another_folder(
    tmp_path: Path, installed: Path, small_overrides: list[str]
) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed: pip install uv")
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True)
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "requirements.lock", wheel],
        check=True,
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, cwd=elsewhere, env=environment, check=True).stdout

    assert "experiments: ablation_alignment" in run(python.parent / "ldbench", "train", "--help")
    assert "psnr" in run(python, "-m", "ldbench.train", *small_overrides)
    (folder,) = (elsewhere / "artifacts" / "tokenizers").glob("vmae-*")
    script = f"import ldbench; t = ldbench.load({str(folder)!r}); print(ldbench.__file__, t.latent.num_tokens)"
    output = run(python, "-c", script)
    assert str(python.parents[1]) in output
    assert output.strip().endswith(" 16")
