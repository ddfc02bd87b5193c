"""The doctor as a whole: all checks, one report, an exit status, and nothing is touched."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.doctor.findings import only
from tests.small_containers import write, write_shards

import ldbench
from ldbench import doctor
from ldbench.artifacts import store as artifacts
from ldbench.checks import installation, machine
from ldbench.checks.finding import Finding, examine, first_line, size
from ldbench.config.compose import Registry


def test_a_check_that_raises_is_a_finding_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> list[Finding]:
        raise RuntimeError("the cable is out\nand more")

    caplog.set_level(logging.INFO)
    assert doctor.report([("cable", fail), ("lamp", lambda: [Finding("ok", "lamp", "is on")])]) == 1
    assert "could not be checked: RuntimeError: the cable is out" in caplog.text
    assert "is on" in caplog.text
    assert "1 broken, no warnings" in caplog.text
    assert "pip install" in only(list(examine("x", lambda: __import__("no_such_module"))), "broken").cure


def test_many_findings_are_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert doctor.report([("lamp", lambda: [Finding("broken", "lamp", "is off", "Switch it on.")] * 100)]) == 1
    assert "and 90 more" in caplog.text
    assert "100 broken" in caplog.text
    assert len(caplog.messages) == 22


def test_warnings_do_not_count() -> None:
    assert doctor.report([("lamp", lambda: [Finding("warning", "lamp", "flickers", "Screw it in.")])]) == 0


def test_the_whole_doctor_ends_with_nothing_broken_on_a_sound_store(
    artifact: Path,
    record: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(installation, "check_torchvision", lambda: [])
    monkeypatch.setattr(machine, "judge_space", lambda folder, free: Finding("ok", "disk", "enough"))
    caplog.set_level(logging.INFO)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        doctor.run(ldbench.compose("doctor", [f"paths.root={tmp_path}"]), Registry())
    assert ended.value.code == 0, caplog.text
    assert "Nothing is broken" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_from_the_command_line_a_broken_artifact_ends_with_status_1_and_no_traceback(
    artifact: Path, tmp_path: Path
) -> None:
    (artifact / artifacts.WEIGHTS).write_bytes(b"")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    script = (  # importing torchvision takes long: that has a test of its own
        f"import sys; sys.argv = ['ldbench', 'doctor', 'paths.root={tmp_path}']\n"
        "from ldbench.checks import installation; installation.PROBE = 'pass'\n"
        "from ldbench.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=elsewhere, env=environment, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "weights.safetensors is not what the manifest says" in done.stdout
    assert "torchvision" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) < 30
    assert not list(elsewhere.iterdir())


@pytest.mark.slow
def test_help_states_the_exit_status_and_loads_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['doctor', '--help']\nfrom ldbench.doctor import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{script}print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "usage: python -m ldbench.doctor" in done.stdout
    assert "exit status is 0 if nothing is broken (warnings do not count), 1 if something is, and 2" in done.stdout
    assert "reach=[wandb,hub]" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_without_hydra_the_installation_is_still_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "hydra", None)
    monkeypatch.delitem(sys.modules, "ldbench.config.compose")
    monkeypatch.delattr(ldbench, "config")
    monkeypatch.setattr(installation, "check_torchvision", lambda: [])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 1


def test_it_is_imported_without_hydra() -> None:
    script = "import sys; sys.modules['hydra'] = None; sys.modules['omegaconf'] = None; import ldbench.doctor"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_sizes_and_errors_are_short() -> None:
    assert [size(n) for n in (1200, 999_600_000, 1.25e9, 80e9)] == ["1 kB", "1000 MB", "1.2 GB", "80 GB"]
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize("name", ["folder", "shards"])
def test_reading_data_changes_nothing(name: str, tmp_path: Path) -> None:
    if name == "shards":
        write_shards(tmp_path / "data")
    else:
        write(tmp_path / "data", "folder", tmp_path / "record")
    before = sorted(tmp_path.rglob("*"))
    words = [f"data={name}", f"data.root={tmp_path / 'data'}", f"paths.root={tmp_path}", "data.fingerprint=content"]
    (check,) = (
        run for what, run in doctor.build_checks(ldbench.compose("doctor", words), Registry()) if what == "data"
    )
    assert only(check(), "ok").what.startswith(f"{name}: ")
    assert sorted(tmp_path.rglob("*")) == before
