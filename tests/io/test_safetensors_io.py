"""Writing safetensors files: atomically, also where a process is killed while it writes one."""

import multiprocessing
import resource
import signal
import stat
from pathlib import Path

import torch
from safetensors.torch import load_file

from ldbench.io.safetensors_io import write_tensors


def killed(path: Path) -> None:
    """Writes more than its file size limit, at which the kernel kills it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    write_tensors({"x": torch.zeros(100_000)}, path)


def test_tensors_come_back_and_all_may_read_them(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3).T, "b": torch.ones(2, requires_grad=True)}
    write_tensors(tensors, tmp_path / "new" / "x.safetensors", metadata={"of": "tests"})
    loaded = load_file(tmp_path / "new" / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
    assert stat.S_IMODE((tmp_path / "new" / "x.safetensors").stat().st_mode) == 0o644
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.safetensors"]


def test_what_a_process_killed_in_the_middle_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors({"x": torch.ones(3)}, path)
    child = multiprocessing.get_context("fork").Process(target=killed, args=(path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGXFSZ
    assert any(left.is_file() for left in tmp_path.rglob("*") if left != path), "it was caught in the act"
    assert torch.equal(load_file(path)["x"], torch.ones(3))
    write_tensors({"x": torch.zeros(3)}, path)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(load_file(path)["x"], torch.zeros(3))
