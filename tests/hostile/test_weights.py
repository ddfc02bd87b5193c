"""Untrusted released weights: pickles, safetensors and the config.json next to them run no code and fill no memory."""

import argparse
import builtins
import io
import json
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ldbench import official
from ldbench.artifacts import store, weights
from ldbench.official import load

Spoil = Callable[[Path, Path], object]  # (file, trap)


class Call:
    """Unpickles as a call."""

    def __init__(self, function: Any, *args: Any):
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class Set:
    """Unpickles as an object with a state."""

    def __init__(self, state: Any):
        self.state = state

    def __reduce__(self) -> Any:
        return (argparse.Namespace, (), self.state)


def touch(trap: Path) -> Call:
    return Call(os.system, f"touch {trap}")


def raw(content: Any, protocol: int = 2) -> bytes:
    return pickle.dumps(content, protocol=protocol)


def inner(trap: Path) -> bytes:
    """A file of torch with a payload, for what loads a file inside a file."""
    held = io.BytesIO()
    torch.save({"w": touch(trap)}, held)
    return held.getvalue()


def deflated(path: Path) -> None:
    """A sound file of torch whose storage is compressed a thousandfold."""
    held = io.BytesIO()
    torch.save({"w": torch.zeros(1 << 24)}, held)
    with zipfile.ZipFile(held) as there, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in there.infolist():
            archive.writestr(part.filename, there.read(part))


def slip(path: Path, trap: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../" * 20 + str(trap).lstrip("/"), b"out")
        archive.writestr("archive/version", b"3")


def tar_slip(path: Path, trap: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle", "../" * 20 + str(trap).lstrip("/")):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def script(path: Path) -> None:
    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    torch.jit.save(torch.jit.trace(Doubling(), torch.zeros(1)), path)


def nested(path: Path) -> None:
    path.write_bytes(b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b".")


def header(path: Path, fields: object, length: int | None = None) -> None:
    content = json.dumps(fields).encode()
    path.write_bytes((len(content) if length is None else length).to_bytes(8, "little") + content)


PT: dict[str, Spoil] = {
    "a pickle that calls os.system": lambda p, trap: p.write_bytes(raw(touch(trap))),
    "a pickle of protocol 5 that calls os.system": lambda p, trap: p.write_bytes(raw(touch(trap), 5)),
    "a pickle that calls eval": lambda p, trap: p.write_bytes(raw(Call(builtins.eval, f"open({str(trap)!r}, 'w')"))),
    "a pickle that calls subprocess": lambda p, trap: p.write_bytes(raw(Call(subprocess.run, ["touch", str(trap)]))),
    "a payload among tensors": lambda p, trap: torch.save({"model": {"w": torch.zeros(2), "b": touch(trap)}}, p),
    "a payload under ema": lambda p, trap: torch.save({"ema": touch(trap), "model": {"w": torch.zeros(2)}}, p),
    "a payload in a command line": lambda p, trap: torch.save(
        {"args": Set({"a": touch(trap)}), "model": {"w": torch.zeros(2)}}, p
    ),
    "a file of torch inside a pickle": lambda p, trap: p.write_bytes(
        raw(Call(torch.storage._load_from_bytes, inner(trap)))
    ),
    "a payload in the old format": lambda p, trap: torch.save(
        {"w": touch(trap)}, p, _use_new_zipfile_serialization=False
    ),
    "a pickled network": lambda p, trap: torch.save(torch.nn.Linear(2, 2), p),
    "a compiled program": lambda p, trap: script(p),
    "a zip that climbs out": slip,
    "a tar that climbs out": tar_slip,
    "a decompression bomb": lambda p, trap: deflated(p),
    "one number repeated to fill the memory": lambda p, trap: torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, p),
    "a tensor without content": lambda p, trap: torch.save({"w": torch.zeros(10**6, 10**6, device="meta")}, p),
    "a sparse tensor": lambda p, trap: torch.save(
        {"w": torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (9**9, 9**9))}, p
    ),
    "endless nesting": lambda p, trap: nested(p),
    "nothing": lambda p, trap: p.write_bytes(b""),
    "a page of the web": lambda p, trap: p.write_text("<!DOCTYPE html><html>404</html>"),
    "a file cut short": lambda p, trap: (torch.save({"w": torch.zeros(1000)}, p), p.write_bytes(p.read_bytes()[:2000])),
    "a list": lambda p, trap: torch.save([torch.zeros(2)], p),
    "no tensors": lambda p, trap: torch.save({"model": {"note": "a"}}, p),
    "a name that clears the screen": lambda p, trap: torch.save({"\x1b[2J": torch.zeros(2)}, p),
    "keys that clear the screen": lambda p, trap: torch.save({"\x1b[2J": 1, ("\x1b",): 2}, p),
    "a pipe": lambda p, trap: os.mkfifo(p),
    "a link to itself": lambda p, trap: p.symlink_to(p),
}
SAFETENSORS: dict[str, Spoil] = {
    "a pickle under another name": lambda p, trap: p.write_bytes(raw(touch(trap))),
    "an endless header": lambda p, trap: header(p, {}, length=1 << 62),
    "a header that is no object": lambda p, trap: header(p, [1, 2]),
    "a tensor larger than its file": lambda p, trap: header(
        p, {"w": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}
    ),
    "offsets that go back": lambda p, trap: header(p, {"w": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}),
    "a size that overflows": lambda p, trap: header(
        p, {"w": {"dtype": "F32", "shape": [2**63, 2], "data_offsets": [0, 0]}}
    ),
    "an unknown dtype": lambda p, trap: header(p, {"w": {"dtype": "OBJECT", "shape": [0], "data_offsets": [0, 0]}}),
    "a pipe": lambda p, trap: os.mkfifo(p),
}


@pytest.mark.parametrize("spoil", PT.values(), ids=PT.keys())
def test_a_pickle(spoil: Spoil, tmp_path: Path, trap: Path, refused) -> None:
    path = tmp_path / "weights.pt"
    spoil(path, trap)
    refused(lambda: weights.read_weights(path), path)


@pytest.mark.parametrize("spoil", SAFETENSORS.values(), ids=SAFETENSORS.keys())
def test_safetensors(spoil: Spoil, tmp_path: Path, trap: Path, refused) -> None:
    path = tmp_path / "model.safetensors"
    spoil(path, trap)
    refused(lambda: weights.read_weights(path), path)


def test_another_class_in_a_saved_namespace_is_ignored(tmp_path: Path) -> None:
    torch.save({"args": Set({"__class__": "os.system", "a": 1}), "model": {"w": torch.zeros(2)}}, tmp_path / "w.pt")
    assert weights.read_weights(tmp_path / "w.pt").keys() == {"w"}


def official_state() -> dict[str, torch.Tensor]:
    """A DiT of width 24, one block and five classes in its official layout, without the table of positions."""
    layers = {"x_embedder.proj": (24, 3, 2, 2), "t_embedder.mlp.0": (24, 256), "t_embedder.mlp.2": (24, 24)}
    layers |= {"final_layer.linear": (24, 24), "final_layer.adaLN_modulation.1": (48, 24)}
    block = {
        "attn.qkv": (72, 24),
        "attn.proj": (24, 24),
        "adaLN_modulation.1": (144, 24),
        "mlp.fc1": (96, 24),
        "mlp.fc2": (24, 96),
    }
    layers |= {f"blocks.0.{layer}": shape for layer, shape in block.items()}
    state = {f"{layer}.weight": torch.ones(shape) for layer, shape in layers.items()}
    state |= {f"{layer}.bias": torch.ones(shape[0]) for layer, shape in layers.items()}
    return state | {"y_embedder.embedding_table.weight": torch.ones(6, 24)}


def imported(source: Any, settings: dict[str, Any] | None = None) -> torch.nn.Module:
    """The network of official weights, as an import makes it."""
    settings = weights.read_settings(source) if settings is None else settings
    found = official.convert("dit_s_2", weights.read_weights(source), settings)
    return store.build(store.Blueprint(found.group, found.component, found.keywords), found.state)


SETTINGS = {
    "text": "{",
    "a list": "[1]",
    "NaN": '{"num_heads": 2, "input_size": NaN}',
    "a key twice": '{"num_heads": 2, "num_heads": 4}',
    "endless nesting": "[" * 100_000,
    "a size in words": '{"num_heads": 2, "input_size": "__import__(\'os\')"}',
    "a size of a billion": '{"num_heads": 2, "input_size": 1000000000}',
    "a size that fills the memory": '{"num_heads": 2, "input_size": 90000}',
    "a size below zero": '{"num_heads": 2, "input_size": -4}',
    "heads of nothing": '{"num_heads": 0}',
    "heads that do not divide": '{"num_heads": 7}',
    "heads as an object": '{"num_heads": {"_target_": "os.system"}}',
    "classes without end": '{"num_heads": 2, "num_classes": 1e300}',
}


@pytest.mark.parametrize("text", SETTINGS.values(), ids=SETTINGS.keys())
def test_the_settings_beside_weights(text: str, tmp_path: Path, refused) -> None:
    torch.save(official_state(), tmp_path / "model.pt")
    (tmp_path / "config.json").write_text('{"num_heads": 2}')
    imported(tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(text)
    refused(lambda: imported(tmp_path / "model.pt"))


STATES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "NaN": lambda state: state["x_embedder.proj.bias"].fill_(float("nan")),
    "infinity": lambda state: state["x_embedder.proj.bias"].fill_(float("inf")),
    "whole numbers": lambda state: state.update({"x_embedder.proj.bias": state["x_embedder.proj.bias"].long()}),
    "complex numbers": lambda state: state.update(
        {"x_embedder.proj.bias": state["x_embedder.proj.bias"].to(torch.complex64)}
    ),
    "a missing tensor": lambda state: state.pop("x_embedder.proj.bias"),
    "a tensor that nobody knows": lambda state: state.update({"<script>alert(1)</script>": torch.zeros(1)}),
    "a scalar for a matrix": lambda state: state.update({"final_layer.linear.weight": torch.tensor(1.0)}),
    "an empty kernel": lambda state: state.update({"x_embedder.proj.weight": torch.zeros(24, 0, 0, 0)}),
    "no width": lambda state: state.update({"x_embedder.proj.weight": torch.zeros(0, 3, 2, 2)}),
    "no channels": lambda state: state.update({"x_embedder.proj.weight": torch.zeros(24, 0, 2, 2)}),
    "blocks numbered a billion": lambda state: state.update({"blocks.1000000000.attn.qkv.bias": torch.zeros(72)}),
    "no labels": lambda state: state.update({"y_embedder.embedding_table.weight": torch.zeros(0, 24)}),
    "a table without tokens": lambda state: state.update({"pos_embed": torch.zeros(1, 0, 24)}),
    "a table of one number": lambda state: state.update({"pos_embed": torch.zeros(())}),
    "a table of truth values": lambda state: state.update({"pos_embed": torch.zeros(1, 4, 24, dtype=torch.bool)}),
}


@pytest.mark.parametrize("spoil", STATES.values(), ids=STATES.keys())
def test_the_tensors_of_an_official_file(spoil, refused) -> None:
    state = official_state()
    imported(state, {"num_heads": 2})
    spoil(state)
    refused(lambda: imported(state, {"num_heads": 2}))


STATS: dict[str, object] = {
    "NaN": {"mean": torch.zeros(1, 4, 1, 1), "std": torch.full((1, 4, 1, 1), float("nan"))},
    "a deviation of zero": {"mean": torch.zeros(1, 4, 1, 1), "std": torch.zeros(1, 4, 1, 1)},
    "a deviation below zero": {"mean": torch.zeros(1, 4, 1, 1), "std": -torch.ones(1, 4, 1, 1)},
    "other channels": {"mean": torch.zeros(1, 5, 1, 1), "std": torch.ones(1, 5, 1, 1)},
    "no tensors": {"mean": 0.0, "std": 1.0},
    "no deviation": {"mean": torch.zeros(1, 4, 1, 1)},
}


@pytest.mark.parametrize("content", STATS.values(), ids=STATS.keys())
def test_the_statistics_of_a_generator(content: object, tmp_path: Path, refused) -> None:
    torch.save(content, tmp_path / "latents_stats.pt")
    refused(lambda: load.read_stats(tmp_path / "latents_stats.pt", 4))


@pytest.mark.parametrize(
    "name", ["hf://../../etc/passwd", "hf://a/b/../../c", "../../../nowhere.pt", "os.system('true')", "dit_s_2\x00.pt"]
)
def test_an_invalid_name(name: str, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(lambda: weights.read_weights(name))


def test_an_official_name_imports_nothing(refused) -> None:
    refused(lambda: official.convert("os.system", {}, {}), "Known: ")
