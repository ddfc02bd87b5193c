"""Python, packages and the config tree: one line if they are ok, else a finding with its cure."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest
from tests.doctor.findings import only

from ldbench.checks import installation
from ldbench.config import compose
from ldbench.config.compose import conf_dir

NMS = "RuntimeError: operator torchvision::nms does not exist"


def probed(status: int, stderr: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], status, stdout="", stderr=stderr)


def test_an_old_python_is_broken_and_the_oldest_is_the_one_that_the_package_declares() -> None:
    assert only(installation.check_python((3, 11, 0)), "ok").what == "3.11.0"
    assert "3.10.14 is older than 3.11" in only(installation.check_python((3, 10, 14)), "broken").what
    declared = importlib.metadata.metadata("ldbench")["Requires-Python"]
    assert declared == f">={'.'.join(map(str, installation.OLDEST_PYTHON))}"


def test_packages_are_compared_with_what_ldbench_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["hydra-core>=1.3", "torch>=99", "no-such-package>=1", 'pytest>=999; extra == "test"']
    monkeypatch.setattr(installation, "requires", lambda name: wanted)
    old, missing = installation.check_packages()
    assert (old.level, missing.level) == ("broken", "broken")
    assert old.what.startswith("torch is ")
    assert old.cure == 'pip install "torch>=99"'
    assert missing.what == "no-such-package is not installed"
    monkeypatch.setattr(installation, "requires", lambda name: wanted[:1])
    assert "all 1 required packages" in only(installation.check_packages(), "ok").what


def test_a_package_that_is_only_on_the_path_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "requires", refuse)
    assert only(installation.check_packages(), "broken").cure.endswith("pip install -e .")


@pytest.mark.parametrize(
    ("done", "torch_version", "torchvision_version", "level", "what", "cure"),
    [
        (probed(0), "2.8.0", "0.23.0", "ok", "work together", ""),
        (probed(0), "2.8.0+cpu", "0.23.0+cpu", "ok", "work together", ""),
        (
            probed(0),
            "2.8.0+cpu",
            "0.23.0",
            "warning",
            "different builds",
            "--index-url https://download.pytorch.org/whl/cpu",
        ),
        (
            probed(1, f"Traceback\n{NMS}\n"),
            "2.8.0+cpu",
            "0.23.0",
            "broken",
            "nms does not exist",
            "https://download.pytorch.org/whl/cpu",
        ),
        (
            probed(1, f"Traceback\n{NMS}\n"),
            "2.8.0",
            "0.23.0+cpu",
            "broken",
            "nms does not exist",
            "--force-reinstall torch torchvision",
        ),
        (
            probed(1, "Traceback\nImportError: libcudart.so.12: no such file\n"),
            "2.8.0",
            "0.23.0",
            "broken",
            "libcudart.so.12",
            "same index",
        ),
        (probed(-4), "2.8.0", "0.23.0", "broken", "the process ended with status -4", "same index"),
    ],
)
def test_torch_and_torchvision_are_judged_by_what_they_do(
    done: subprocess.CompletedProcess[str],
    torch_version: str,
    torchvision_version: str,
    level: str,
    what: str,
    cure: str,
) -> None:
    found = only([installation.judge_torchvision(done, torch=torch_version, torchvision=torchvision_version)], level)
    assert what in found.what
    assert cure in found.cure


@pytest.mark.slow
def test_the_torch_and_torchvision_of_this_environment_work_together() -> None:
    assert {found.level for found in installation.check_torchvision()} <= {"ok", "warning"}


def test_an_import_that_takes_forever_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object, timeout: float, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", wait)
    assert f"after {installation.TIMEOUT} s" in only(installation.check_torchvision(), "broken").what


def test_the_config_tree_is_found_and_composes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert str(conf_dir()) in only(installation.check_config(), "ok").what
    (tmp_path / "train.yaml").write_text("defaults: [nothing: here]\n")
    monkeypatch.setattr(compose, "conf_dir", lambda: tmp_path)
    assert "train does not compose" in only(installation.check_config(), "broken").what
    monkeypatch.setattr(compose, "conf_dir", lambda: tmp_path / "gone")
    assert "there is no config tree" in only(installation.check_config(), "broken").what
