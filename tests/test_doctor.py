"""The doctor: what is well is said in a line, what is not comes with its cure, and nothing is touched."""

import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ldbench
from ldbench import artifacts, config, doctor
from ldbench.checks import installation, latents, machine, storage
from ldbench.checks.finding import Finding, examine, first_line, size
from ldbench.core.latent import LatentSpec
from ldbench.core.protocols import Estimate
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.writing import StoreWriter
from ldbench.results import records

NMS = "RuntimeError: operator torchvision::nms does not exist"


def only(findings: list[Finding], level: str) -> Finding:
    """The one finding of a check, at this level, with a cure unless it is well."""
    (found,) = findings
    assert found.level == level, found
    assert "\n" not in found.what
    assert level == "ok" or found.cure
    return found


def probed(status: int, stderr: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], status, stdout="", stderr=stderr)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A whole artifact, under the name of a tokenizer that the config knows."""
    folder = tmp_path / "artifacts" / "tokenizers" / "vmae-0123abcd"
    blueprint = artifacts.Blueprint("tokenizer", "vmae", {})
    artifacts.save(nn.Linear(2, 2), folder, blueprint, recipe={}, digest="0123abcd", provenance={})
    return folder


@pytest.fixture
def record(tmp_path: Path) -> Path:
    empty = {name: {} for name in ("artifacts", "config", "environment")}
    protocol = {"name": "digits", "hash": records.protocol_hash({})}
    said = {"subject": {"tokenizer": "vmae", "generator": None, "data": "digits"}, "protocol": protocol, "created": "2026-11-24T16:13:24+00:00"}
    return records.write(records.Record(id="01", job="reconstruct", metrics={"psnr": Estimate(20.0)}, **said, **empty), tmp_path / "records")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A whole store of latents."""
    said = {"tokenizer_digest": "0123abcd", "data": "digits", "num_classes": 10, "fingerprint": "ab", "split": "train", "preprocessing": {}}
    contents = Contents(tokenizer="vmae-0123abcd", flips=False, dtype="fp32", precision="fp32", **said)
    folder = contents.folder(tmp_path / "artifacts" / "latents")
    writer = StoreWriter(folder, contents, latent=LatentSpec(2, 3), num_images=5, shard_size=3)
    for shard in writer.missing():
        count = len(writer.images_of(shard))
        writer.write(shard, torch.zeros(count, 2, 2, 3), torch.zeros(count, dtype=torch.int64))
    writer.finish()
    return folder


def artifact_findings(root: Path) -> list[Finding]:
    return storage.check_artifacts(root / "artifacts", root / "runs")


def test_an_old_python_is_told_and_the_oldest_is_the_one_that_the_package_declares() -> None:
    assert only(installation.check_python((3, 11, 0)), "ok").what == "3.11.0"
    assert "3.10.14 is older than 3.11" in only(installation.check_python((3, 10, 14)), "broken").what
    declared = importlib.metadata.metadata("ldbench")["Requires-Python"]
    assert declared == f">={'.'.join(map(str, installation.OLDEST_PYTHON))}"


def test_packages_are_held_against_what_ldbench_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["hydra-core>=1.3", "torch>=99", "no-such-package>=1", 'pytest>=999; extra == "test"']
    monkeypatch.setattr(installation, "requires", lambda name: wanted)
    old, missing = installation.check_packages()
    assert (old.level, missing.level) == ("broken", "broken")
    assert old.what.startswith("torch is ")
    assert old.cure == 'pip install "torch>=99"'
    assert missing.what == "no-such-package is not installed"
    monkeypatch.setattr(installation, "requires", lambda name: wanted[:1])
    assert "all 1 required packages" in only(installation.check_packages(), "ok").what


def test_a_package_that_is_only_on_the_path_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "requires", refuse)
    assert only(installation.check_packages(), "broken").cure.endswith("pip install -e .")


@pytest.mark.parametrize(
    ("done", "torch_version", "torchvision_version", "level", "what", "cure"),
    [
        (probed(0), "2.8.0", "0.23.0", "ok", "work together", ""),
        (probed(0), "2.8.0+cpu", "0.23.0+cpu", "ok", "work together", ""),
        (probed(0), "2.8.0+cpu", "0.23.0", "warning", "different builds", "--index-url https://download.pytorch.org/whl/cpu"),
        (probed(1, f"Traceback\n{NMS}\n"), "2.8.0+cpu", "0.23.0", "broken", "nms does not exist", "https://download.pytorch.org/whl/cpu"),
        (probed(1, f"Traceback\n{NMS}\n"), "2.8.0", "0.23.0+cpu", "broken", "nms does not exist", "--force-reinstall torch torchvision"),
        (probed(1, "Traceback\nImportError: libcudart.so.12: no such file\n"), "2.8.0", "0.23.0", "broken", "libcudart.so.12", "same index"),
        (probed(-4), "2.8.0", "0.23.0", "broken", "the process ended with status -4", "same index"),
    ],
)
def test_torch_and_torchvision_are_judged_by_what_they_do(
    done: subprocess.CompletedProcess[str], torch_version: str, torchvision_version: str, level: str, what: str, cure: str
) -> None:
    found = only([installation.judge_torchvision(done, torch=torch_version, torchvision=torchvision_version)], level)
    assert what in found.what
    assert cure in found.cure


@pytest.mark.slow
def test_the_torch_and_torchvision_of_this_environment_work_together() -> None:
    assert {found.level for found in installation.check_torchvision()} <= {"ok", "warning"}


def test_an_import_that_takes_forever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object, timeout: float, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", wait)
    assert f"after {installation.PATIENCE} s" in only(installation.check_torchvision(), "broken").what


def test_the_config_tree_is_found_and_composes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert str(config.conf_dir()) in only(installation.check_config([]), "ok").what
    (tmp_path / "train.yaml").write_text("defaults: [nothing: here]\n")
    monkeypatch.setattr(config, "conf_dir", lambda: tmp_path)
    assert "train does not compose" in only(installation.check_config([]), "broken").what
    monkeypatch.setattr(config, "conf_dir", lambda: tmp_path / "gone")
    assert "there is no config tree" in only(installation.check_config([]), "broken").what


def test_devices_are_named_with_what_they_train_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(machine.check_cpu(), "ok").what.endswith("trains in fp32, bf16")
    card = SimpleNamespace(name="NVIDIA H100", total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert only(machine.check_cuda(), "ok").what == "2 x NVIDIA H100, 80 GB; trains in fp32, tf32, bf16, fp16"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12e9)
    assert only(machine.check_mps(), "ok").what.endswith("12 GB of memory; trains in fp32, bf16")


@pytest.mark.parametrize(("built_for", "told"), [(None, "built without CUDA"), ("12.8", "sees no device")])
def test_a_graphics_card_that_torch_cannot_use_is_told(built_for: str | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert told in only(machine.check_cuda(), "warning").what
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert machine.check_cuda() == []


def test_the_configured_trainer_is_held_against_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_threads", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = {"accelerator": "cpu", "precision": "fp32", "devices": 1, "threads": 1}
    assert "1 of 4 threads" in only(machine.check_trainer(**settings), "ok").what
    assert "trainer.threads=2" in only(machine.check_trainer(**settings | {"threads": 4, "devices": 2}), "warning").cure
    assert "Choose bf16 or fp32" in only(machine.check_trainer(**settings | {"precision": "fp16"}), "broken").cure
    assert "Choose trainer.accelerator=auto" in only(machine.check_trainer(**settings | {"accelerator": "cuda"}), "broken").cure


def test_room_on_the_disk_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    for free, level in ((50e9, "ok"), (1e9, "warning"), (1e8, "broken")):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: usage(free))
        assert str(tmp_path) in only(machine.check_disk([tmp_path / "not" / "yet", tmp_path]), level).what
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    assert "no file can be written in" in only([f for f in machine.check_disk([file / "artifacts"]) if f.level != "ok"], "broken").what

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "NamedTemporaryFile", refuse)
    found = only([f for f in machine.check_disk([tmp_path]) if "Permission denied" in f.what], "broken")
    assert "paths.root=DIR" in found.cure


def test_a_whole_artifact_is_counted_and_an_empty_store_is_no_fault(artifact: Path, tmp_path: Path) -> None:
    assert "1 artifact in" in only(artifact_findings(tmp_path), "ok").what
    assert "none in" in only(artifact_findings(tmp_path / "elsewhere"), "ok").what


@pytest.mark.parametrize("name", [artifacts.WEIGHTS, artifacts.CONFIG])
def test_an_altered_artifact_is_broken(name: str, artifact: Path, tmp_path: Path) -> None:
    (artifact / name).write_bytes((artifact / name).read_bytes() + b" ")
    found = only(artifact_findings(tmp_path), "broken")
    assert f"{name} is not what the manifest says" in found.what
    assert f"rm -r {artifact}, then python -m ldbench.train tokenizer=vmae" in found.cure
    (artifact / name).unlink()
    assert only(artifact_findings(tmp_path), "broken") == found


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"files": ["config.json", "weights.safetensors"]}'])
def test_a_manifest_that_cannot_be_read_is_broken(content: str, artifact: Path, tmp_path: Path) -> None:
    (artifact / artifacts.MANIFEST).write_text(content)
    said = only(artifact_findings(tmp_path), "broken").what
    assert "cannot be read" in said or "manifest.json is no manifest of an artifact (files is missing" in said


def test_an_artifact_of_another_schema_is_broken(artifact: Path, tmp_path: Path) -> None:
    manifest = json.loads((artifact / artifacts.MANIFEST).read_text())
    (artifact / artifacts.MANIFEST).write_text(json.dumps(manifest | {"schema": 99}))
    assert "has schema 99, and this version of ldbench reads 1" in only(artifact_findings(tmp_path), "broken").what


def test_what_was_interrupted_is_a_warning_beside_what_is_whole(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "generators" / "sit-99").mkdir(parents=True)
    (artifact.parent / ".building-x1").mkdir()
    (artifact.parent / ".vmae-0123abcd.lock").touch()
    fine, partial, left = artifact_findings(tmp_path)
    assert (fine.level, partial.level, left.level) == ("ok", "warning", "warning")
    assert "sit-99 has no manifest.json" in partial.what
    assert "the command that made it" in partial.cure
    assert f"rm -r {artifact.parent / '.building-x1'}" in left.cure


def test_checkpoints_may_go_only_when_their_artifact_is_sound(artifact: Path, tmp_path: Path) -> None:
    for name in (artifact.name, "vmae-unfinished"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / name / "checkpoints" / "tune.ckpt").write_bytes(bytes(3_000_000))
    _, spare = artifact_findings(tmp_path)
    assert spare.level == "ok"
    assert spare.what.startswith("3.0 MB of checkpoints may go")
    assert spare.cure == f"To free the space: rm -r {tmp_path / 'runs' / artifact.name / 'checkpoints'}"
    (artifact / artifacts.WEIGHTS).write_bytes(b"")
    only(artifact_findings(tmp_path), "broken")


def test_a_whole_store_of_latents_is_counted_apart_from_artifacts(store: Path, artifact: Path, tmp_path: Path) -> None:
    assert "1 store in" in only(latents.check_latents(store.parent), "ok").what
    assert "1 artifact in" in only(artifact_findings(tmp_path), "ok").what
    assert "none in" in only(latents.check_latents(tmp_path / "elsewhere"), "ok").what


@pytest.mark.parametrize(
    ("content", "told"),
    [(lambda held: held[:-1] + b"?", "was altered: its sum is another"), (lambda held: held[:-1], "bytes, and its manifest says")],
)
def test_altered_latents_are_broken(store: Path, content: Callable[[bytes], bytes], told: str) -> None:
    path = store / "shard-00001.safetensors"
    path.write_bytes(content(path.read_bytes()))
    found = only(latents.check_latents(store.parent), "broken")
    assert "shard-00001.safetensors" in found.what
    assert told in found.what
    assert f"rm -r {store}, then python -m ldbench.run job=encode" in found.cure


def test_latents_with_a_manifest_that_cannot_be_read_are_broken(store: Path) -> None:
    (store / "manifest.json").write_text("{")
    assert "cannot be read" in only(latents.check_latents(store.parent), "broken").what


def test_interrupted_latents_are_a_warning_with_how_to_go_on(store: Path) -> None:
    (store / "manifest.json").unlink()
    (store / "shard-00000.json").touch()
    found = only(latents.check_latents(store.parent), "warning")
    assert "was interrupted after 1 shard" in found.what
    assert "Make it whole: python -m ldbench.run job=encode" in found.cure


def test_what_only_the_making_of_latents_needed_may_go(store: Path) -> None:
    (store / "plan.json").touch()
    (store / ".shard-00001.safetensors.77.tmp").touch()
    fine, spare = latents.check_latents(store.parent)
    assert (fine.level, spare.level) == ("ok", "warning")
    assert "keeps 2 files" in spare.what
    subprocess.run(spare.cure.partition(": ")[2], shell=True, check=True)
    only(latents.check_latents(store.parent), "ok")


def test_records_are_read_and_what_is_none_is_told(record: Path) -> None:
    assert "1 record in" in only(storage.check_records(record.parent), "ok").what
    (record.parent / "notes.json").write_text("[]")
    (record.parent / "later.json").write_text('{"schema": 99}')
    (record.parent / ".half.json").write_text("{")
    fine, later, notes = storage.check_records(record.parent)
    assert (fine.level, later.level, notes.level) == ("ok", "broken", "broken")
    assert "later.json: schema must be 1, which is what this version of ldbench reads; got 99" in later.what
    assert "notes.json: the file must be a JSON object" in notes.what
    assert "move it out of" in notes.cure


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> list[Finding]:
        raise RuntimeError("the cable is out\nand more")

    caplog.set_level(logging.INFO)
    assert doctor.report([("cable", fail), ("lamp", lambda: [Finding("ok", "lamp", "is on")])]) == 1
    assert "could not be checked: RuntimeError: the cable is out" in caplog.text
    assert "is on" in caplog.text
    assert "1 broken, no warnings" in caplog.text
    assert "pip install" in only(list(examine("x", lambda: __import__("no_such_module"))), "broken").cure


def test_many_findings_make_no_wall(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert doctor.report([("lamp", lambda: [Finding("broken", "lamp", "is off", "Switch it on.")] * 100)]) == 1
    assert "and 90 more" in caplog.text
    assert "100 broken" in caplog.text
    assert len(caplog.messages) == 22


def test_warnings_do_not_count() -> None:
    assert doctor.report([("lamp", lambda: [Finding("warning", "lamp", "flickers", "Screw it in.")])]) == 0


def test_the_whole_doctor_ends_with_nothing_broken_on_a_sound_store(
    artifact: Path, record: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(installation, "check_torchvision", lambda: [])
    monkeypatch.setattr(machine, "judge_space", lambda folder, free: Finding("ok", "disk", "enough"))
    caplog.set_level(logging.INFO)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        doctor.run(ldbench.compose("doctor", [f"paths.root={tmp_path}"]), [])
    assert ended.value.code == 0, caplog.text
    assert "Nothing is broken" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before


def test_from_the_command_line_a_broken_artifact_ends_with_status_1_and_no_traceback(artifact: Path, tmp_path: Path) -> None:
    (artifact / artifacts.WEIGHTS).write_bytes(b"")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    script = (  # importing torchvision takes long: that has a test of its own
        f"import sys; sys.argv = ['ldbench', 'doctor', 'paths.root={tmp_path}']\n"
        "from ldbench.checks import installation; installation.PROBE = 'pass'\n"
        "from ldbench.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=elsewhere, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert "weights.safetensors is not what the manifest says" in done.stdout
    assert "torchvision" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) < 30
    assert not list(elsewhere.iterdir())


def test_help_loads_no_torch(tmp_path: Path) -> None:
    script = "import sys; sys.argv = ['doctor', '--help']\nfrom ldbench.doctor import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    done = subprocess.run([sys.executable, "-c", f"{script}print('torch' in sys.modules)"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "usage: python -m ldbench.doctor" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_without_hydra_the_installation_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "hydra", None)
    monkeypatch.delitem(sys.modules, "ldbench.config")
    monkeypatch.delattr(ldbench, "config")
    monkeypatch.setattr(installation, "check_torchvision", lambda: [])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 1


def test_sizes_and_errors_are_said_in_few_words() -> None:
    assert [size(n) for n in (1200, 999_600_000, 1.25e9, 80e9)] == ["1 kB", "1000 MB", "1.2 GB", "80 GB"]
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
