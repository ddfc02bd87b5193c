"""Ranks that one command starts: when one dies all end, with a sentence that names it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a rank that runs some code, under a thread that watches it and must report nothing."""
    for name in ("_trained", "_ending"):
        monkeypatch.setattr(launcher, name, threading.Event())
    for name, seconds in (("POLL_SECONDS", 0.01), ("GRACE_SECONDS", 0.1)):
        monkeypatch.setattr(launcher, name, seconds)
    monkeypatch.setattr(launcher, "_started", {})
    monkeypatch.setattr(launcher, "exit_all_ranks", lambda message: pytest.fail(message))
    watcher = threading.Thread(target=launcher.watch_ranks)

    def start(code: str) -> subprocess.Popen[bytes]:
        launcher._started[1] = subprocess.Popen([sys.executable, "-c", code])
        watcher.start()
        return launcher._started[1]

    yield start
    watcher.join(10)
    assert not watcher.is_alive()
    launcher._started[1].kill()


def test_a_rank_that_ends_slowly_after_a_training_is_waited_for(other, caplog: pytest.LogCaptureFixture) -> None:
    process = other("import time; time.sleep(1)")
    launcher.training_ended()
    launcher.wait_for_ranks()
    assert process.returncode == 0
    assert caplog.messages == ["This training is complete. Waiting up to 30 s for process 1 to end."]


@pytest.mark.parametrize("trained", [True, False])
def test_a_rank_that_is_killed_at_exit_did_not_fail(
    trained: bool, other, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(launcher, "TEARDOWN_SECONDS", 0.3 if trained else 60.0)
    process = other("import time; time.sleep(60)")
    if trained:
        launcher.training_ended()
    launcher.wait_for_ranks()
    assert process.wait(10) == -signal.SIGKILL
    time.sleep(0.1)  # in which the thread would look again
    killed = f"Process 1 (pid {process.pid}) did not end, and was killed after the training, which is complete."
    assert caplog.messages[1:] == ([killed] if trained else [])
    assert len(caplog.messages) == (2 if trained else 0)


def test_a_rank_that_fails_after_the_training_is_named(other, caplog: pytest.LogCaptureFixture) -> None:
    process = other("import sys, time; time.sleep(0.5); sys.exit(3)")
    launcher.training_ended()
    launcher.wait_for_ranks()
    assert f"Process 1 (pid {process.pid}) failed with exit status 3 after the training" in caplog.text


def test_a_rank_that_fails_while_others_train_ends_all(other, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(launcher, "exit_all_ranks", lambda message: (said.append(message), launcher._ending.set()))
    process = other("import sys; sys.exit(3)")
    process.wait()
    assert launcher._ending.wait(10)
    assert said[0].startswith(f"Process 1 of this training (pid {process.pid}) failed with exit status 3, and the")


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
