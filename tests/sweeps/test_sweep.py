"""Sweeps from the command line: each tokenizer once, failures reported and retried, and kills that change no record."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.fixtures import Answer

from ldbench import train
from ldbench.sweeps.plugins import CheckedSweeper

CELLS = [
    "generator.max_steps=4",
    "generator.batch_size=8",
    "generator.optimizer.warmup_steps=2",
    "generator.backbone.width=24",
]
CELLS += [
    "generator.backbone.depth=1",
    "generator.backbone.num_heads=2",
    "sampler.num_steps=2",
    "callbacks.checkpoint.every=2",
]
CELLS += ["callbacks.samples.num_images=4", "protocol.num_samples=20"]
TRAINED = "s. Tokenizer: "  # part of a training's last log line
GRID = ["tokenizer.seed=0,1", "generator=sit,lightningdit"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A shell's environment. With PYTHONDONTWRITEBYTECODE each process would compile all of torch: they cache it."""
    cache = (
        {}
        if "PYTHONDONTWRITEBYTECODE" not in os.environ
        else {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}
    )
    unwanted = ("HYDRA_FULL_ERROR", "LDBENCH_SHORT_ERRORS", "PYTHONDONTWRITEBYTECODE")
    return {**{key: value for key, value in os.environ.items() if key not in unwanted}, **cache}


@pytest.fixture(scope="module")
def command(small_overrides: list[str]) -> Callable[..., list[str]]:
    """The command line of a sweep of tiny cells."""
    return lambda root, *words: [
        sys.executable,
        "-m",
        "ldbench.train",
        "-m",
        *small_overrides,
        *CELLS,
        f"paths.root={root}",
        *words,
    ]


Sweep = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def sweep(command: Callable[..., list[str]], environment: dict[str, str]) -> Sweep:
    """Runs a sweep of tiny cells under a root."""

    def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(root, *words), capture_output=True, text=True, env=environment, check=False)

    return run


def logs(root: Path) -> dict[str, str]:
    """The logs of the latest sweep, by name."""
    latest = max((root / "runs" / "sweeps").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    return {path.stem: path.read_text() for path in latest.glob("*.log")}


def outcome(root: Path) -> dict[str, object]:
    """The content of all files that a sweep leaves, except for times and the machine."""
    contents: dict[str, object] = {}
    for path in sorted(root.glob("artifacts/*/*/*.safetensors")):
        contents[str(path.relative_to(root))] = {key: value.tolist() for key, value in load_file(path).items()}
    for path in sorted(root.glob("artifacts/*/*/*.json")):
        whole = json.loads(path.read_text())
        contents[str(path.relative_to(root))] = {
            key: value for key, value in whole.items() if key not in ("created", "seconds", "environment")
        }
    for path in sorted(root.glob("records/*.json")):
        contents[path.name] = {
            key: value for key, value in json.loads(path.read_text()).items() if key not in ("created", "environment")
        }
    return contents


@pytest.mark.slow
def test_what_points_share_is_built_once_before_they_start(
    small_overrides: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["-m", *small_overrides, "seed=0,1", "hydra.launcher.jobs=2", f"paths.root={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "ldbench.train", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("started tokenizer vmae-")
    assert lines[1].startswith("done    tokenizer vmae-")
    assert "3 done, in" in lines[-1]
    texts = logs(tmp_path)
    assert sorted(name.partition("-")[0] for name in texts) == ["0", "1", "tokenizer"]
    assert [name.partition("-")[0] for name, text in texts.items() if TRAINED in text] == ["tokenizer"]
    assert all("exists already" in texts[name] for name in ("0", "1"))
    assert len(list(tmp_path.glob("artifacts/tokenizers/vmae-*"))) == 1
    assert len(list(tmp_path.glob("records/*.json"))) == 1


def test_mistakes_are_reported_before_any_work(answer: Answer, tmp_path: Path) -> None:
    done = answer(train, "-m", "generator=sit,siit,dti", "seed=0,1", cwd=tmp_path)
    assert done.returncode == 2
    assert "4 of the 6 points of this sweep are invalid" in done.stderr
    assert "There is no generator=siit. Did you mean sit?" in done.stderr
    assert "There is no generator=dti. Did you mean dit?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def uninterrupted(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a sweep of two tokenizers and two generators, one process at a time."""
    root = tmp_path_factory.mktemp("uninterrupted")
    done = sweep(root, *GRID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(name for name, text in logs(root).items() if TRAINED in text) == sorted(
        name for name in logs(root) if name.startswith("tokenizer")
    )
    return root


@pytest.mark.slow
def test_a_failed_cell_is_reported_and_retried_and_two_processes_give_the_results_of_one(
    uninterrupted: Path, sweep: Sweep, tmp_path: Path
) -> None:
    lost = next(uninterrupted.glob("artifacts/generators/sit-*")).name
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / lost).write_text("a file where the folder of a training belongs")
    failed = sweep(tmp_path, *GRID, "hydra.launcher.jobs=2")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    (line,) = [line for line in failed.stdout.splitlines() if line.startswith("failed")]
    assert "generator=sit" in line
    assert f"runs/{lost}: File exists." in line
    assert "5 done, 1 failed" in failed.stdout
    assert len(list(tmp_path.glob("artifacts/generators/*/manifest.json"))) == 3
    (tmp_path / "runs" / lost).unlink()
    again = sweep(tmp_path, *GRID, "hydra.launcher.jobs=2")
    assert again.returncode == 0, again.stdout + again.stderr
    texts = logs(tmp_path).values()
    assert sum("s. Generator: " in text for text in texts) == 1, "the others existed"
    assert not [text for text in texts if TRAINED in text]
    assert outcome(tmp_path) == outcome(uninterrupted)
    assert len([name for name in outcome(tmp_path) if name.endswith("weights.safetensors")]) == 6


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["runs/vmae-*/checkpoints/*", "runs/sit-*/checkpoints/*"])
def test_a_killed_sweep_resumes_and_ends_like_an_uninterrupted_one(
    pattern: str,
    uninterrupted: Path,
    sweep: Sweep,
    command: Callable[..., list[str]],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    words = command(tmp_path, *GRID, "hydra.launcher.jobs=2")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 600
    while not any(tmp_path.glob(pattern)):
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    complete = len(list(tmp_path.glob("artifacts/generators/*/manifest.json")))
    assert complete < 4
    done = sweep(tmp_path, *GRID, "hydra.launcher.jobs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_a_sweep_cannot_be_part_of_a_shared_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match=r"2 were started for this one\. Start it without torchrun or srun and set trainer\.devices=N"
    ):
        CheckedSweeper(params=None).sweep([])
