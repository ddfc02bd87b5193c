"""Ranks that one command starts: when one dies all end, with a sentence that names it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ldbench.runtime import launcher

SCRIPT = """
import os, sys, time
from ldbench.runtime import launcher
launcher.exit_with_parent()
launcher.spawn_ranks(3)
with open(os.environ["RANK"] + ".tmp", "w") as file:
    file.write(str(os.getpid()))
os.replace(file.name, os.environ["RANK"])
while len(sys.argv) < 2:
    time.sleep(0.05)
"""


@pytest.fixture
def three(tmp_path: Path):
    """Three waiting processes, by rank; rank 0 is the one that was started."""
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    first = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while not all((tmp_path / rank).is_file() for rank in "012"):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    yield first, [int((tmp_path / rank).read_text()) for rank in "012"]
    first.kill()


@pytest.mark.slow
def test_one_that_dies_takes_all_with_it(three) -> None:
    first, pids = three
    os.kill(pids[2], signal.SIGKILL)
    _, messages = first.communicate(timeout=120)  # returns when all have closed its stderr
    assert first.returncode == 1
    assert f"Process 2 of this training (pid {pids[2]}) was killed by SIGKILL, and the others were ended." in messages
    assert "The same command resumes from the last checkpoint." in messages


@pytest.mark.slow
def test_none_outlives_the_first(three) -> None:
    first, pids = three
    first.kill()
    _, messages = first.communicate(timeout=120)
    for rank in (1, 2):
        assert f"The first process of this training (pid {pids[0]}) is gone, and process {rank} ends too." in messages


@pytest.mark.slow
def test_the_first_may_end_when_all_is_done(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", "done"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert "this training" not in done.stderr


@pytest.mark.parametrize(("code", "message"), [(-9, "was killed by SIGKILL"), (2, "failed with exit status 2")])
def test_an_exit_code_is_described(code: int, message: str) -> None:
    assert launcher.describe_exit(code) == message


@pytest.mark.parametrize(
    ("spec", "argv", "expected"),
    [
        ("ldbench.train", ["/x/train.py", "tokenizer=vmae"], ["-m", "ldbench.train", "tokenizer=vmae"]),
        (None, ["ldbench train", "tokenizer=vmae"], ["-m", "ldbench.train", "tokenizer=vmae"]),
        (None, [__file__, "a"], [__file__, "a"]),
    ],
)
def test_others_run_the_same_command(monkeypatch: pytest.MonkeyPatch, spec, argv, expected) -> None:
    import __main__

    monkeypatch.setattr(__main__, "__spec__", spec and type("Spec", (), {"name": spec}))
    monkeypatch.setattr(sys, "argv", argv)
    assert launcher.command() == [sys.executable, *expected]
