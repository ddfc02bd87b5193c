"""Opens tar shards with the settings of the tests."""

from pathlib import Path

from ldbench.data.shards import Shards

SETTINGS = {
    "name": "shards",
    "image_size": 8,
    "train_shards": None,
    "test_shards": None,
    "test_fraction": 0.25,
    "label_key": None,
    "one_class": False,
    "label_safe_flips": True,
    "check": "decode",
    "fingerprint": "content",
    "on_error": "raise",
    "subset": None,
    "seed": 0,
    "index": "reuse",
    "cache_dir": None,
    "cache_size": 1,
    "retries": 1,
    "timeout": 5,
}


def shards(root: Path | str, **changes) -> Shards:
    return Shards(root=str(root), **{**SETTINGS, **changes})
