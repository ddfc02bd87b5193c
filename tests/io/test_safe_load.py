"""Checkpoints as they exist: what trainers leave beside the weights is passed over, and runs no code."""

import sys
from collections import defaultdict
from pathlib import Path, PosixPath
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from ldbench.artifacts.weights import read_weights
from ldbench.io.safe_load import read_pickle

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(3)}


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class of a package that is not installed, as that of an old Lightning's callback."""
    names = ["pytorch_lightning", "callbacks", "model_checkpoint"]
    for count in range(1, len(names) + 1):
        monkeypatch.setitem(sys.modules, ".".join(names[:count]), ModuleType(".".join(names[:count])))
    made = type("ModelCheckpoint", (), {"__module__": ".".join(names)})
    sys.modules[".".join(names)].ModelCheckpoint = made  # type: ignore[attr-defined]
    return made


def saved(path: Path, beside: Any, *, legacy: bool = False) -> Path:
    torch.save({"state_dict": WEIGHTS, **beside}, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "beside",
    [
        {"hyper_parameters": OmegaConf.create({"lr": 1e-4, "betas": [0.9, 0.99], "model": {"width": 8}})},
        {"best": np.float64(0.5), "steps": np.int64(7), "history": np.arange(3)},
        {"dirpath": PosixPath("/data/runs")},
        {"counts": defaultdict(int, {"a": 1}), "lists": defaultdict(list), "types": [int, float]},
    ],
    ids=["omegaconf", "numpy", "pathlib", "defaultdict"],
)
def test_settings_and_counters_are_passed_over(beside: dict[str, Any], legacy: bool, tmp_path: Path) -> None:
    found = read_weights(saved(tmp_path / "last.ckpt", beside, legacy=legacy))
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in WEIGHTS.items()
    }


def test_callbacks_of_an_old_lightning_run_no_code(callback: type, tmp_path: Path, monkeypatch) -> None:
    path = saved(tmp_path / "last.ckpt", {"callbacks": {callback: {"best_model_path": "x"}, "object": callback()}})
    monkeypatch.delitem(sys.modules, "pytorch_lightning.callbacks.model_checkpoint")
    assert read_weights(path).keys() == WEIGHTS.keys()
    assert "pytorch_lightning.callbacks.model_checkpoint" not in sys.modules


@pytest.mark.parametrize("name", ["posix.system", "os.system", "builtins.eval", "lightningx.run", "subprocess.Popen"])
def test_other_classes_are_refused_by_name(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "bad.ckpt"
    path.write_bytes(b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"X\x04\x00\x00\x00true\x85R.")
    with pytest.raises(ValueError, match="is not a file that is safe to read"):
        read_pickle(path)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pt"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
        with pytest.raises(ValueError, match=rf"{name} is a pointer of git-lfs, .* git lfs pull"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors"]
)
def test_usual_names_of_weights_are_found_in_a_folder(name: str, tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / name) if name.endswith("safetensors") else torch.save(WEIGHTS, tmp_path / name)
    assert read_weights(tmp_path).keys() == WEIGHTS.keys()
