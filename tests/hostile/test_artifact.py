"""Untrusted artifacts with consistent manifests: no setting runs code, no number fills the memory, no weight is NaN."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ldbench
from ldbench.artifacts import store
from ldbench.config.compose import Registry
from ldbench.pipeline import get_tokenizer
from ldbench.tokenizers.vmae import VMAE

SIZES = {"image_size": 8, "patch_size": 4, "latent_channels": 2, "width": 8, "depth": 1, "num_heads": 2}
SIZES |= {"decoder_width": 8, "decoder_depth": 1, "decoder_num_heads": 2, "mlp_ratio": 2.0}
KEYWORDS = {**SIZES, "latent_head": "linear", "position_resize": "interpolate"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound artifact."""
    torch.manual_seed(0)
    folder = tmp_path / "vmae-0123"
    blueprint = store.Blueprint("tokenizer", "vmae", KEYWORDS)
    store.save(VMAE(**KEYWORDS), folder, blueprint, recipe={"seed": 0}, digest="0123" * 16, provenance={})
    return folder


def fitted(folder: Path) -> None:
    """Makes the manifest fit the files."""
    path = folder / store.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["files"] = {name: store.file_digest(folder / name) for name in manifest["files"]}
    path.write_text(json.dumps(manifest))


def described(**changed: Any) -> Callable[[Path], None]:
    """Changes the config as a stranger would; keywords are added to those that are there."""

    def spoil(folder: Path) -> None:
        path = folder / store.CONFIG
        blueprint = json.loads(path.read_text())
        keywords = {**blueprint["keywords"], **changed.pop("more", {})}
        path.write_text(json.dumps({**blueprint, "keywords": keywords, **changed}))
        fitted(folder)

    return spoil


def config_text(text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / store.CONFIG).write_text(text)
        fitted(folder)

    return spoil


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        state = load_file(folder / store.WEIGHTS)
        change(state)
        save_file(state, folder / store.WEIGHTS)
        fitted(folder)

    return spoil


def weight_bytes(content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / store.WEIGHTS).write_bytes(content)
        fitted(folder)

    return spoil


def manifest(**changed: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / store.MANIFEST
        manifest = {**json.loads(path.read_text()), **changed}
        path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not ...}, default=str))

    return spoil


def manifest_text(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / store.MANIFEST).write_text(text)


def piped(folder: Path) -> None:
    (folder / store.WEIGHTS).unlink()
    os.mkfifo(folder / store.WEIGHTS)


def without(key: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        blueprint = json.loads((folder / store.CONFIG).read_text())
        del blueprint[key]
        config_text(json.dumps(blueprint))(folder)

    return spoil


FIRST = "encoder.patch_embed.proj.bias"
CASES: dict[str, Callable[[Path], object]] = {
    "a manifest whose files are a list": manifest(files=["config.json", "weights.safetensors"]),
    "a manifest whose sums are numbers": manifest(files={"config.json": 1, "weights.safetensors": 2}),
    "a manifest that names a file outside": manifest(files={"config.json": "0", "../../../etc/passwd": "0"}),
    "a manifest without a digest": lambda folder: manifest(digest=...)(folder),
    "a manifest that is a number": manifest_text("1"),
    "a manifest nested without end": manifest_text("[" * 100_000),
    "a manifest with a key twice": manifest_text('{"schema": 1, "schema": 2}'),
    "a manifest in another alphabet": lambda folder: (folder / store.MANIFEST).write_bytes(b"\xff\xfe{"),
    "a schema in words": manifest(schema="1; import os"),
    "a config that is a list": config_text("[1]"),
    "a config nested without end": config_text("[" * 100_000),
    "a config with NaN": config_text('{"group": NaN}'),
    "a config without keywords": without("keywords"),
    "a config without a group": without("group"),
    "keywords that are a list": described(keywords=[1]),
    "a component that is a list": described(component=["vmae"]),
    "a component of builtins": described(component="builtins.eval"),
    "a group that climbs out": described(group="../../../../etc"),
    "a group without a constructor": described(group="experiments", component="vmae_imagenet256"),
    "a width of a billion": described(more={"width": 10**9, "num_heads": 1}),
    "a width of a thousand thousands": described(more={"width": 10**6, "num_heads": 1}),
    "a depth of a billion": described(more={"depth": 10**9}),
    "an image of a million px": described(more={"image_size": 10**6}),
    "an endless feedforward": described(more={"mlp_ratio": 1e308}),
    "a patch of nothing": described(more={"patch_size": 0}),
    "heads of nothing": described(more={"num_heads": 0}),
    "a width below zero": described(more={"width": -8}),
    "a width in words": described(more={"width": "8"}),
    "a width in parts": described(more={"width": 8.5}),
    "a width that is a list": described(more={"width": [8]}),
    "a width that is a component": described(more={"width": {"component": "linear"}}),
    "a part that climbs out": described(more={"interpolant": {"component": "../../intruder"}}),
    "a latent that is no latent": described(more={"latent": {"num_tokens": 10**18, "channels": -1, "grid": "ab"}}),
    "a normaliser of a trillion": described(more={"normaliser": {"channels": 10**12}}),
    "parts nested without end": described(
        more={"backbone": json.loads('{"component": "dit", "backbone": ' * 300 + "1" + "}" * 300)}
    ),
    "NaN among the weights": weights(lambda state: state[FIRST].fill_(float("nan"))),
    "infinity among the weights": weights(lambda state: state[FIRST].fill_(float("-inf"))),
    "weights of whole numbers": weights(lambda state: state.update({FIRST: state[FIRST].long()})),
    "weights of truth values": weights(lambda state: state.update({FIRST: state[FIRST].bool()})),
    "a weight of another shape": weights(lambda state: state.update({FIRST: state[FIRST][:3].clone()})),
    "a weight too many": weights(lambda state: state.update({"__class__": torch.zeros(1)})),
    "no weights": weights(lambda state: state.clear()),
    "weights that are a pickle": weight_bytes(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."),
    "weights with an endless header": weight_bytes((1 << 60).to_bytes(8, "little")),
    "weights that are a pipe": piped,
}


@pytest.mark.parametrize("spoil", CASES.values(), ids=CASES.keys())
def test_an_artifact(spoil: Callable[[Path], object], folder: Path, refused) -> None:
    store.load(folder)
    spoil(folder)
    refused(lambda: store.load(folder), folder)


SOURCES: dict[str, Callable[[Path], object]] = {
    "a config without a size": described(keywords={}),
    "a size in words": described(more={"image_size": "${oc.env:HOME}"}),
    "a config that is no object": config_text("3"),
    "a manifest without a digest": manifest(digest=...),
}


@pytest.mark.parametrize("spoil", SOURCES.values(), ids=SOURCES.keys())
def test_an_artifact_that_a_training_stands_on(spoil: Callable[[Path], object], folder: Path, refused) -> None:
    spoil(folder)
    cfg = ldbench.compose("train", ["tokenizer=artifact", f"tokenizer.path={folder}"])
    refused(lambda: get_tokenizer.open_artifact(cfg, Registry()), folder)


def test_more_files_in_the_folder_are_not_looked_at(folder: Path, trap: Path) -> None:
    (folder / "__init__.py").write_text(f"open({str(trap)!r}, 'w')")
    (folder / "sitecustomize.py").write_text(f"open({str(trap)!r}, 'w')")
    (folder / "tokenizer.yaml").write_text("_target_: os.system\n")
    assert isinstance(store.load(folder), VMAE)
