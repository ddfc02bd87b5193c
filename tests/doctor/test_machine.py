"""Devices, threads and disks: one line if they are ok, else a finding with its cure."""

import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.doctor.findings import only

from ldbench.checks import machine
from ldbench.runtime.cpu import validate_compiler


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


@pytest.mark.parametrize(("built_for", "message"), [(None, "built without CUDA"), ("12.8", "sees no device")])
def test_a_graphics_card_that_torch_cannot_use_is_told(
    built_for: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert message in only(machine.check_cuda(), "warning").what
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert machine.check_cuda() == []


def test_the_configured_trainer_is_held_against_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_threads", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = {"accelerator": "cpu", "precision": "fp32", "devices": 1, "threads": 1}
    assert "1 of 4 threads" in only(machine.check_trainer(**settings), "ok").what
    assert "trainer.threads=2" in only(machine.check_trainer(**settings | {"threads": 4, "devices": 2}), "warning").cure
    assert "Choose bf16 or fp32" in only(machine.check_trainer(**settings | {"precision": "fp16"}), "broken").cure
    assert (
        "Choose trainer.accelerator=auto"
        in only(machine.check_trainer(**settings | {"accelerator": "cuda"}), "broken").cure
    )


def test_room_on_the_disk_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    for free, level in ((50e9, "ok"), (1e9, "warning"), (1e8, "broken")):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: usage(free))
        assert str(tmp_path) in only(machine.check_disk([tmp_path / "not" / "yet", tmp_path]), level).what
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    assert (
        "no file can be written in"
        in only([f for f in machine.check_disk([file / "artifacts"]) if f.level != "ok"], "broken").what
    )

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "NamedTemporaryFile", refuse)
    found = only([f for f in machine.check_disk([tmp_path]) if "Permission denied" in f.what], "broken")
    assert "paths.root=DIR" in found.cure


def test_little_shared_memory_and_a_long_path_of_temporary_files_are_warned_of(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(total=64 << 20, free=0))
    (found,) = machine.check_shared_memory(tmp_path)
    assert (found.level, "--shm-size" in found.cure) == ("warning", True)
    assert machine.check_shared_memory(tmp_path / "none") == []
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: "/" + "a" * 80)
    (found,) = machine.check_temporary_files()
    assert (found.level, "Set TMPDIR" in found.cure) == ("warning", True)


def test_a_missing_compiler_is_said_and_refused_for_what_needs_it(monkeypatch) -> None:
    monkeypatch.setattr("ldbench.runtime.cpu.shutil.which", lambda _: None)
    (found,) = machine.check_compiler()
    assert "apt-get install g++" in found.cure
    with pytest.raises(ValueError, match=r"trainer\.compile=true needs a C\+\+ compiler on a CPU"):
        validate_compiler(compiles=True, device="cpu")
    validate_compiler(compiles=False, device="cpu")
    validate_compiler(compiles=True, device="cuda")
