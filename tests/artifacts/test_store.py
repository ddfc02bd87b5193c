"""Artifacts: complete or absent, exactly what was saved, built by one process at a time, and safe to load."""

import json

import pytest
import torch

from ldbench.artifacts import store
from ldbench.artifacts.store import Blueprint, digest
from ldbench.core.latent import LatentSpec
from ldbench.tokenizers.vmae import VMAE

KEYWORDS = {
    "image_size": 8,
    "patch_size": 4,
    "latent_channels": 2,
    "width": 8,
    "depth": 1,
    "num_heads": 2,
    "decoder_width": 8,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
    "mlp_ratio": 2.0,
    "latent_head": "linear",
    "position_resize": "interpolate",
}
BLUEPRINT = Blueprint("tokenizer", "vmae", KEYWORDS)


@pytest.fixture
def vmae() -> VMAE:
    torch.manual_seed(0)
    return VMAE(**KEYWORDS)


@pytest.fixture
def folder(vmae, tmp_path):
    """A saved artifact."""
    return save(vmae, tmp_path / "artifacts" / "vmae-0123")


def save(model, folder):
    store.save(model, folder, BLUEPRINT, recipe={"seed": 0}, digest="0123", provenance={"created": "today"})
    return folder


def tamper(folder, **changed) -> None:
    """Changes config.json as an attacker would: with a manifest that matches."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"] = store.file_digest(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_loaded_is_what_was_saved_to_the_last_bit(vmae, folder):
    loaded = store.load(folder)
    assert isinstance(loaded, VMAE)
    assert not loaded.training
    saved = vmae.state_dict()
    assert loaded.state_dict().keys() == saved.keys()
    assert all(
        torch.equal(value, saved[key]) and value.dtype == saved[key].dtype for key, value in loaded.state_dict().items()
    )
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(loaded.encode(images).mean, vmae.eval().encode(images).mean)


def test_an_artifact_holds_its_config_and_its_provenance(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "manifest.json", "weights.safetensors"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir()), (
        "a shared folder is read by others too"
    )
    described = json.loads((folder / "config.json").read_text())
    assert (described["group"], described["component"], described["keywords"], described["recipe"]) == (
        "tokenizer",
        "vmae",
        KEYWORDS,
        {"seed": 0},
    )
    manifest = store.read_manifest(folder)
    assert (manifest["digest"], manifest["created"]) == ("0123", "today")
    assert set(manifest["files"]) == {"config.json", "weights.safetensors"}
    assert store.is_complete(folder)


def test_saving_leaves_nothing_else_behind(folder):
    assert list(folder.parent.iterdir()) == [folder]


def test_saving_over_an_incomplete_folder_replaces_it(vmae, tmp_path):
    folder = tmp_path / "vmae-0123"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"half")
    (folder / "stray").write_text("left over")
    save(vmae, folder)
    assert store.load(folder).image_size == 8
    assert not (folder / "stray").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
@pytest.mark.parametrize("harm", ["altered", "truncated", "removed"])
def test_a_file_that_does_not_match_the_manifest_is_refused_by_name(folder, name, harm):
    content = (folder / name).read_bytes()
    if harm == "altered":
        (folder / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    elif harm == "truncated":
        (folder / name).write_bytes(content[:-10])
    else:
        (folder / name).unlink()
    with pytest.raises(
        ValueError,
        match=rf"{name} does not match its manifest: it was altered or truncated. Remove .* and run the command",
    ):
        store.load(folder)


def test_a_folder_without_a_manifest_is_refused_with_its_sibling_artifacts(vmae, folder):
    other = save(vmae, folder.with_name("vmae-4567"))
    (folder / "manifest.json").unlink()
    assert not store.is_complete(folder)
    with pytest.raises(
        ValueError,
        match=rf"is no complete artifact: it has no manifest.json. Artifacts in the same folder: {other.name}\.",
    ):
        store.load(folder)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is no complete artifact"):
        store.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", '{"files": {', "{}", '{"files": {}}'])
def test_a_broken_manifest_is_refused_by_name(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        store.load(folder)


def test_plain_data_becomes_objects():
    assert store.build_keywords({"width": 8, "latent": {"num_tokens": 6, "channels": 2, "grid": [2, 3]}}) == {
        "width": 8,
        "latent": LatentSpec(6, 2, (2, 3)),
    }
    assert store.build_keywords(KEYWORDS) == KEYWORDS


def test_weights_of_another_model_are_refused(vmae, tmp_path):
    blueprint = Blueprint("tokenizer", "vmae", KEYWORDS | {"depth": 2})
    store.save(vmae, tmp_path / "a", blueprint, recipe={}, digest="0", provenance={})
    with pytest.raises(ValueError, match=r"do not fit VMAE: 12 missing \(first: encoder\.transformer\.blocks\.1"):
        store.load(tmp_path / "a")


@pytest.mark.parametrize("written", ["write_tensors", "write_json"])
def test_a_save_that_dies_leaves_no_artifact_and_no_scraps(vmae, tmp_path, monkeypatch, written):
    def die(content, path, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, written, die)
    folder = tmp_path / "artifacts" / "vmae-0123"
    with pytest.raises(KeyboardInterrupt):
        save(vmae, folder)
    assert not store.is_complete(folder)
    assert list(folder.parent.iterdir()) == []


def test_a_save_that_dies_keeps_the_existing_artifact(vmae, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(store, "write_tensors", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(vmae, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_manifest_is_written_last(vmae, tmp_path, monkeypatch):
    written = []
    write_tensors, write_json = store.write_tensors, store.write_json
    monkeypatch.setattr(
        store, "write_tensors", lambda content, path: (written.append(path.name), write_tensors(content, path))
    )
    monkeypatch.setattr(
        store, "write_json", lambda path, content: (written.append(path.name), write_json(path, content))
    )
    save(vmae, tmp_path / "vmae-0123")
    assert written == ["weights.safetensors", "config.json", "manifest.json"]


def test_what_a_killed_process_left_of_an_artifact_goes_when_it_is_stored(vmae, tmp_path):
    folder = tmp_path / "vmae-0123"
    left = tmp_path / ".building-vmae-0123"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    save(vmae, folder)
    store.verify(folder)
    assert not left.exists()


def test_a_component_that_no_config_group_names_is_refused_with_those_that_are(folder):
    tamper(folder, component="stranger")
    with pytest.raises(ValueError, match=r"no tokenizer named 'stranger' here. Known: .*vmae.*searchpath"):
        store.load(folder)


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A function that returns whether the module `intruder` was imported or called."""
    trace = tmp_path / "trace"
    (tmp_path / "intruder.py").write_text(
        f"import pathlib\npathlib.Path({str(trace)!r}).touch()\ndef run(*_, **__): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return trace.exists


@pytest.mark.parametrize(
    "changed",
    [
        {"component": "intruder.run"},
        {"component": "../../intruder"},
        {"_target_": "intruder.run"},
        {"keywords": KEYWORDS | {"_target_": "intruder.run"}},
        {"keywords": KEYWORDS | {"width": {"_target_": "intruder.run"}}},
        {"group": "intruder", "component": "run"},
    ],
    ids=["dotted", "path", "target", "target_in_keywords", "nested_target", "group"],
)
def test_nothing_in_an_untrusted_config_runs_code(folder, trap, changed):
    tamper(folder, **changed)
    try:
        store.load(folder)
    except (ValueError, TypeError):
        refused = True
    else:
        refused = False
    assert not trap()
    assert refused or changed == {"_target_": "intruder.run"}, "keys that no loader reads are harmless"


@pytest.mark.parametrize("relative", [False, True])
def test_a_group_outside_the_config_tree_is_refused_even_when_the_artifact_brings_its_own_yaml(folder, trap, relative):
    (folder / "evil.yaml").write_text("_target_: intruder.run\n")
    group = str(folder)
    if relative:
        group = "../" * 30 + group.lstrip("/")
    tamper(folder, group=group, component="evil", keywords={})
    with pytest.raises(ValueError, match="group"):
        store.load(folder)
    assert not trap()


def test_a_keyword_that_the_component_does_not_take_is_refused_with_a_sentence(folder):
    tamper(folder, keywords=KEYWORDS | {"color": "red"})
    with pytest.raises(ValueError, match="color"):
        store.load(folder)


def test_the_digest_does_not_depend_on_the_order_of_keys_and_on_everything_else():
    content = {"seed": 0, "model": {"width": 96, "depth": 3}, "stages": ["a", "b"]}
    assert digest({"stages": ["a", "b"], "model": {"depth": 3, "width": 96}, "seed": 0}) == digest(content)
    others = [
        content | {"seed": 1},
        content | {"model": {"width": 96}},
        content | {"stages": ["b", "a"]},
        content | {"seed": None},
        content | {"more": 0},
    ]
    assert len({digest(other) for other in [content, *others]}) == 6


def test_the_digest_refuses_what_is_not_plain():
    with pytest.raises(ValueError, match="JSON"):
        digest({"lr": float("nan")})
    with pytest.raises(TypeError):
        digest({"model": object()})


def test_the_digest_is_the_same_in_every_process():
    assert (
        digest({"b": [1, None, "x"], "a": {"d": 0.1, "c": True}})
        == "ea6f3b7fbc6e4e812799d2e591e849cf6ad59f6736c5a2931156b2101082bb10"
    )
