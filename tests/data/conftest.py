"""Fixtures for datasets of Hugging Face."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ldbench.data.hf import HuggingFace

SETTINGS = {
    "name": "hf",
    "revision": None,
    "config_name": None,
    "streaming": False,
    "image_size": 8,
    "image_column": None,
    "label_column": None,
    "one_class": False,
    "train_split": None,
    "test_split": None,
    "test_fraction": 0.25,
    "label_safe_flips": True,
    "check": "decode",
    "fingerprint": "content",
    "on_error": "raise",
    "subset": None,
    "seed": 0,
}


@pytest.fixture
def hf(tmp_path: Path) -> Callable[..., HuggingFace]:
    """Opens a dataset with a cache of its own."""

    def opened(root: Path | str, **changes: object) -> HuggingFace:
        return HuggingFace(root=str(root), **{**SETTINGS, "cache_dir": str(tmp_path / "cache"), **changes})

    return opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Parquet files of eight training images and three held-out ones."""
    from tests.hf_datasets import parquet, rows  # which skips without the package

    return parquet(tmp_path / "parquet", train=rows(0, 8), test=rows(100, 3))
