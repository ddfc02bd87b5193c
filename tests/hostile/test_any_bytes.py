"""Three readers on arbitrary bytes: each returns a result, or raises ValueError or OSError with a sentence.

`tests/fuzz` holds the same for hours, by coverage.
"""

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from safetensors.torch import save
from tests.examples import examples

from ldbench.artifacts import store, weights
from ldbench.core.estimate import Estimate
from ldbench.data.latents.manifest import Manifest
from ldbench.results import records, validation
from ldbench.tokenizers.vmae import VMAE

HOW: dict[str, Any] = {"derandomize": True, "suppress_health_check": list(HealthCheck)}
QUICK = examples(120, **HOW)

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["_target_", "os.system", "../..", "inf", "vmae"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)

PROTOCOL = {"name": "digits", "data": "ab"}
PROTOCOL |= {"hash": records.protocol_hash(PROTOCOL)}
RECORD: dict[str, Any] = {
    "id": "01",
    "job": "reconstruct",
    "subject": {"tokenizer": "vmae", "generator": None, "data": "digits"},
    "schema": 1,
}
RECORD |= {
    "metrics": {"psnr": {"value": 40.0, "low": 39.0, "high": 41.0}},
    "protocol": PROTOCOL,
    "artifacts": {"tokenizer": "vmae-01"},
}
RECORD |= {"config": {"seed": 0}, "environment": {"python": "3.11"}, "created": "2026-11-24T16:13:24+00:00"}

SIZES = {"image_size": 8, "patch_size": 4, "latent_channels": 2, "width": 8, "depth": 1, "num_heads": 2}
SIZES |= {"decoder_width": 8, "decoder_depth": 1, "decoder_num_heads": 2, "mlp_ratio": 2.0}
KEYWORDS = {**SIZES, "latent_head": "linear", "position_resize": "interpolate"}
STATE = VMAE(**KEYWORDS).state_dict()
CONFIG = {"schema": 1, "group": "tokenizer", "component": "vmae", "keywords": KEYWORDS, "recipe": {}}

PICKLE = io.BytesIO()
torch.save({"model": {"w": torch.arange(6.0), "b": torch.zeros(2)}, "epoch": 3}, PICKLE)
OLD = io.BytesIO()
torch.save({"w": torch.arange(6.0)}, OLD, _use_new_zipfile_serialization=False)


def paths(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where everything in plain data stands."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(position for key, value in inside for position in paths(value, (*path, key)))]


@st.composite
def altered(draw: st.DrawFn, content: Any) -> Any:
    """Plain data in which some things are others, or gone, or more."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.sampled_from(paths(content)))
        if not position:
            return draw(PLAIN)
        node = content
        for key in position[:-1]:
            node = node[key]
        kind = draw(st.sampled_from(["other", "gone", "more"]))
        if kind == "gone":
            del node[position[-1]]
        elif kind == "more" and isinstance(node, dict):
            node[draw(st.text(max_size=10))] = draw(PLAIN)
        else:
            node[position[-1]] = draw(PLAIN)
    return content


@st.composite
def spoiled(draw: st.DrawFn, content: bytes) -> bytes:
    """A file in which some bytes are others, or cut off, or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        position = draw(st.integers(0, max(0, len(found) - 1)))
        kind = draw(st.sampled_from(["other", "cut", "more"]))
        if kind == "cut":
            del found[position:]
        elif kind == "more":
            found[position:position] = draw(st.binary(max_size=20))
        elif found:
            found[position] = draw(st.integers(0, 255))
    return bytes(found)


def answers(read: Callable[[], object]) -> None:
    """Holds a reader to what it may do."""
    try:
        read()
    except (ValueError, OSError) as error:
        clear(error)


def clear(error: Exception) -> None:
    """Whether an answer is one of ours, and a sentence."""
    assert type(error) in (ValueError, FileNotFoundError, validation.InvalidRecordError), repr(error)
    assert len(str(error)) > 12
    assert str(error).replace("\n", "").isprintable(), repr(error)
    assert all(fault.isprintable() for fault in getattr(error, "faults", ())), repr(error)


def in_file(content: bytes, name: str, read: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        answers(lambda: read(path))


@QUICK
@given(altered(RECORD) | PLAIN)
def test_the_reader_of_records_on_plain_data(content: Any) -> None:
    answers(lambda: validation.validated(content))


@QUICK
@given(st.binary(max_size=200) | spoiled(json.dumps(RECORD).encode()))
def test_the_reader_of_records_on_bytes(content: bytes) -> None:
    in_file(content, "reconstruct-01.json", validation.read_validated)


def test_the_record_that_is_altered_is_sound() -> None:
    assert validation.validated(RECORD, "reconstruct-01").metrics["psnr"] == Estimate(40.0, 39.0, 41.0)


def artifact(path: Path, config: bytes, manifest: Any = None) -> None:
    """An artifact of our weights, whose sums fit; or whose manifest is another."""
    path.mkdir()
    (path / store.CONFIG).write_bytes(config)
    (path / store.WEIGHTS).write_bytes(save({key: value.contiguous() for key, value in STATE.items()}))
    files = {name: store.file_digest(path / name) for name in (store.WEIGHTS, store.CONFIG)}
    content = {"schema": 1, "digest": "01", "files": files} if manifest is None else manifest
    (path / store.MANIFEST).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@examples(50, **HOW)
@given(altered(CONFIG))
def test_the_loader_of_artifacts_on_other_configs(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifact(Path(folder) / "a", json.dumps(content).encode())
        answers(lambda: store.load(Path(folder) / "a"))


@QUICK
@given(st.binary(max_size=100) | spoiled(json.dumps(CONFIG).encode()))
def test_the_loader_of_artifacts_on_other_bytes_of_a_config(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifact(Path(folder) / "a", content)
        answers(lambda: store.load(Path(folder) / "a"))


@QUICK
@given(
    altered({"schema": 1, "digest": "01", "files": {store.CONFIG: "01", store.WEIGHTS: "02"}}) | st.binary(max_size=100)
)
def test_the_reader_of_manifests(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifact(Path(folder) / "a", b"{}", content)
        answers(lambda: store.verify(Path(folder) / "a"))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "old.pt"])
def test_the_reader_of_weights(name: str) -> None:
    sound = {"w.pt": PICKLE.getvalue(), "old.pt": OLD.getvalue(), "w.safetensors": save({"w": torch.arange(6.0)})}[name]
    in_file(
        sound,
        name,
        lambda path: weights.read_weights(path)["w"].sum() == 15 or pytest.fail("the sound one is not read"),
    )

    @QUICK
    @given(st.binary(max_size=200) | spoiled(sound))
    def hold(content: bytes) -> None:
        in_file(content, name, weights.read_weights)

    hold()


def test_the_reader_of_stores_on_plain_data() -> None:
    contents = {
        "tokenizer": "a",
        "tokenizer_digest": "b",
        "tokenizer_key": "b",
        "data": "c",
        "num_classes": 2,
        "fingerprint": "d",
        "split": "train",
    }
    contents |= {"preprocessing": {}, "flips": False, "dtype": "fp32", "precision": "fp32", "source": None}
    numbers = {"count": 4, "mean": [0.0], "variance_of_means": [1.0], "mean_variance": [0.0]}
    shard = {
        "file": "shard-00000.safetensors",
        "first": 0,
        "num_images": 2,
        "num_bytes": 9,
        "sha256": "0",
        "parts": 1,
        "statistics": numbers,
    }
    manifest = {
        "schema": 1,
        "digest": "0",
        "contents": contents,
        "latent": {"num_tokens": 2, "channels": 1, "grid": None},
    }
    manifest |= {"num_images": 2, "shard_size": 2, "shards": [shard], "statistics": numbers}
    from ldbench.data.latents.manifest import MANIFEST, Contents, read_manifest

    manifest["digest"] = Contents(**contents).digest()
    assert Manifest.from_dict(manifest).num_images == 2

    @QUICK
    @given(altered(manifest) | PLAIN)
    def hold(content: Any) -> None:
        in_file(json.dumps(content).encode(), MANIFEST, lambda path: read_manifest(path.parent))

    hold()
