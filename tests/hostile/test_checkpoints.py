"""Untrusted checkpoints and cached features: invalid ones are skipped with a log message, or refused, and never run."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ldbench.artifacts import store
from ldbench.jobs._batches import SplitImages
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.metrics import feature_set
from ldbench.training import checkpoints


class Payload:
    """Unpickles as a call."""

    def __init__(self, trap: Path):
        self.trap = trap

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trap}",)


WHOLE = dict.fromkeys(checkpoints.REQUIRED_KEYS, 0)
CHECKPOINTS: dict[str, Callable[[Path, Path], object]] = {
    "a payload": lambda path, trap: torch.save(WHOLE | {"callbacks": Payload(trap)}, path),
    "a payload in the old format": lambda path, trap: torch.save(
        WHOLE | {"a": Payload(trap)}, path, _use_new_zipfile_serialization=False
    ),
    "a payload for the hyper-parameters": lambda path, trap: torch.save(
        WHOLE | {"hyper_parameters": Payload(trap)}, path
    ),
    "a list": lambda path, trap: torch.save([1], path),
    "a state dict alone": lambda path, trap: torch.save({"state_dict": {}}, path),
    "a number": lambda path, trap: torch.save(1, path),
    "nothing": lambda path, trap: path.write_bytes(b""),
    "a page of the web": lambda path, trap: path.write_text("<html>"),
    "a pickled network": lambda path, trap: torch.save(torch.nn.Linear(1, 1), path),
}


@pytest.mark.parametrize("spoil", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_a_checkpoint(
    spoil: Callable[[Path, Path], object], tmp_path: Path, trap: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = checkpoints.newest(tmp_path, "pretrain")
    path.parent.mkdir()
    torch.save(WHOLE, checkpoints.previous(path))
    spoil(path, trap)
    assert checkpoints.newest_readable(path) == checkpoints.previous(path)
    assert f"{path} cannot be read" in caplog.text
    checkpoints.previous(path).unlink()
    assert checkpoints.newest_readable(path) is None


FEATURES: dict[str, Callable[[Path, Path], object]] = {
    "a pickle": lambda path, trap: path.write_bytes(b"\x80\x04cposix\nsystem\n."),
    "nothing": lambda path, trap: path.write_bytes(b""),
    "an endless header": lambda path, trap: path.write_bytes((1 << 60).to_bytes(8, "little")),
    "no count": lambda path, trap: save_file({"a": torch.zeros(1)}, path),
    "a count of many": lambda path, trap: save_file({"num_images": torch.zeros(3)}, path),
    "moments without a mean": lambda path, trap: save_file(
        {"num_images": torch.tensor(1), "normal.count": torch.tensor([1])}, path
    ),
    "a count for a moment": lambda path, trap: save_file(
        {"num_images": torch.tensor(1), "normal.count": torch.tensor(1)}, path
    ),
    "a folder": lambda path, trap: path.mkdir(),
}


@pytest.mark.parametrize("spoil", FEATURES.values(), ids=FEATURES.keys())
def test_features(
    spoil: Callable[[Path, Path], object], tmp_path: Path, trap: Path, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures = SetEvaluator("x", SimpleNamespace(), "0", {}, 0, tmp_path, 0, torch.device("cpu"))
    path = tmp_path / f"{store.digest({'needs': [], 'revision': feature_set.REVISION})}.safetensors"
    spoil(path, trap)
    if path.is_dir():
        monkeypatch.setattr(SetEvaluator, "extract", lambda *_, **__: None)
    refused(
        lambda: measures.cached_features({}, SplitImages([], "round", 1, 0), num_processes=1, requires=frozenset()),
        path,
    )
