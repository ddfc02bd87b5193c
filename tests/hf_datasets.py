"""Small datasets of Hugging Face, as parquet files; skips a test file where `datasets` is not installed."""

from pathlib import Path
from typing import Any

import pytest

from tests.small_containers import encoded

datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'ldbench[datasets]'")


def png(i: int) -> bytes:
    return encoded(i)


BINARY, TEXT, INT = "binary", "string", "int64"


def rows(first: int, count: int, **columns: Any) -> Any:
    """A dataset of encoded images with labels in turn."""
    names = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"image": datasets.Image(), "label": names})
    content = {
        "image": [{"bytes": encoded(i), "path": None} for i in range(first, first + count)],
        "label": [i % 2 for i in range(first, first + count)],
    }
    made = datasets.Dataset.from_dict(content, features=features)
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


def parquet(folder: Path, **splits: Any) -> Path:
    """A folder of one parquet file a split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in splits.items():
        made.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


def of_columns(folder: Path, content: dict[str, list], features: dict[str, Any], *, splits=("train", "test")) -> Path:
    """Splits of the same rows."""
    made = datasets.Dataset.from_dict(content, features=datasets.Features(features))
    return parquet(folder, **dict.fromkeys(splits, made))
