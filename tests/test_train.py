"""The command line in processes of its own, as users run it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldbench import train
from tests.fixtures import Answer


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    command = [sys.executable, "-m", "ldbench.train", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tokenizer=vmea"], "Did you mean vmae?"),
        (
            ["tokenizer=vmae", "tokenizer.model.patch_size=7"],
            "patch_size 7 does not divide the 24 px image. Choose one of",
        ),
        (["tokenizer=vmae_f8d16", "data=digits"], "takes 256 px images, but data digits hands over 32 px"),
        (["data=folder"], "data.root"),
        (
            ["-m", "trainer.devices=2", "tokenizer.seed=0,1", "hydra/launcher=basic"],
            "Set trainer.devices=1, or hydra/launcher=local.",
        ),
    ],
)
def test_a_mistake_is_answered_in_one_screen_without_a_traceback(
    answer: Answer, words: list[str], message: str, tmp_path: Path
) -> None:
    done = answer(train, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len((done.stderr + done.stdout).splitlines()) <= 12
    # which Hydra itself writes for a sweep
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "multirun.yaml"]


@pytest.mark.slow
def test_a_separate_process_prints_the_same(answer: Answer, tmp_path: Path) -> None:
    words = ["tokenizer=vmae", "tokenizer.model.patch_size=7"]
    process, here = start(*words, cwd=tmp_path), answer(train, *words, cwd=tmp_path)
    assert (*process.communicate(), process.returncode) == (here.stdout, here.stderr, here.returncode)


def test_help_lists_every_group_loads_no_torch_and_leaves_nothing_behind(tmp_path: Path) -> None:
    from ldbench.config.compose import conf_dir

    script = "import sys; sys.argv = ['train', '--help']\nfrom ldbench.train import main\n"
    script += "try:\n    main()\nexcept SystemExit as end:\n    print(end.code or 0)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    *_, status, loads_torch = done.stdout.splitlines()
    assert (status, loads_torch) == ("0", "False")
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()} - {"hydra"}  # its own help lists these
    assert {line.split(":")[0] for line in done.stdout.splitlines()} >= groups
    assert "experiments: ablation_" in done.stdout
    assert "vmae_f8d16" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_console_script_is_the_module(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "ldbench"
    if not script.exists():
        pytest.skip("ldbench is on the path but not installed")
    done = subprocess.run(
        [script, "train", "tokenizer=vmea"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert "Did you mean vmae?" in done.stderr
    assert subprocess.run([script, "nothing"], capture_output=True, check=False).returncode == 2


@pytest.mark.trains
@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_with_one_sentence_and_goes_on_and_a_third_one_finds_it(
    answer: Answer, sent: signal.Signals, tmp_path: Path, small_overrides: list[str]
) -> None:
    words = [*small_overrides, "tokenizer.stages.pretrain.max_steps=250", "callbacks.checkpoint.every=5"]
    first = start(*words, cwd=tmp_path)
    while not list(tmp_path.glob("runs/*/checkpoints/pretrain.ckpt")) and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(sent)
    output, messages = first.communicate(timeout=60)
    assert first.returncode == 130, messages
    assert "The same command resumes from the last checkpoint." in messages
    assert "Traceback" not in output + messages
    second = answer(train, *words, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "Resuming" in second.stdout
    assert "psnr" in second.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "records", "runs"]
    started = time.time()
    third = answer(train, *words, cwd=tmp_path)
    assert "exists already: artifacts/tokenizers/vmae-" in third.stdout
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.stat().st_mtime > started
    ]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 600 kB."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.trains
def test_a_full_disk_is_reported_and_leaves_nothing_that_looks_complete(
    answer: Answer, full_disk: Path, tmp_path: Path, small_overrides: list[str]
) -> None:
    done = answer(train, *small_overrides, f"paths.root={full_disk}", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(full_disk.glob("artifacts/tokenizers/*/manifest.json"))


def test_a_root_that_cannot_be_written_is_reported(answer: Answer, tmp_path: Path, small_overrides: list[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    done = answer(train, *small_overrides, f"paths.root={tmp_path / 'file'}", cwd=tmp_path)
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr
    assert "paths.root=DIR" in done.stderr
    assert "Traceback" not in done.stderr
