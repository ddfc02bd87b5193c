"""VMAE's official checkpoints: all layouts, and error messages."""

import argparse
import json
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ldbench
from ldbench.tokenizers.vmae import VMAE

MANIFESTS = Path(__file__).parents[1] / "parity" / "data" / "manifests"
BLOCK = {
    "norm1": (24,),
    "attn.qkv": (72, 24),
    "attn.proj": (24, 24),
    "norm2": (24,),
    "mlp.fc1": (96, 24),
    "mlp.fc2": (24, 96),
}


@pytest.fixture
def official() -> dict[str, torch.Tensor]:
    """A small official VMAE for 16 px: 2 + 3 blocks of width 24, patches of 4 px, 5 latent channels."""
    shapes = {"pos_embed": (1, 16, 24), "decoder_pos_embed": (1, 16, 24)}
    layers = {
        "to_latent": (10, 24),
        "from_latent": (24, 5),
        "patch_embed.proj": (24, 3, 4, 4),
        "norm": (24,),
        "decoder_embed": (24, 24),
    }
    layers |= {"decoder_norm": (24,), "decoder_pred.linear_pred": (48, 24), "decoder_pred.conv_smoother": (3, 3, 3, 3)}
    for prefix, depth in (("blocks", 2), ("decoder_blocks", 3)):
        layers |= {f"{prefix}.{i}.{part}": shape for i in range(depth) for part, shape in BLOCK.items()}
    for layer, shape in layers.items():
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    rng = torch.Generator().manual_seed(0)
    return {key: 0.2 * torch.randn(shape, generator=rng) for key, shape in shapes.items()}


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def trained(official) -> dict:
    """A training checkpoint of the official script."""
    extras = {
        "mask_token": torch.full((1, 1, 24), 0.5),
        "perceptual_loss.net.slice1.0.weight": torch.zeros(64, 3, 3, 3),
    }
    args = argparse.Namespace(model="mae_for_ldmae_f8d16_prev", lr=None, betas=[0.9, 0.95])
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    return {"model": official | extras, "optimizer": optimizer, "epoch": 90, "scaler": {"scale": 65536.0}, "args": args}


def same(a: VMAE, b: VMAE, *, but: str = "nothing") -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items() if but not in key)


def test_sizes_are_read_off_the_tensors(official):
    vmae = ldbench.load_official("vmae_f8d16", official)
    assert isinstance(vmae, VMAE)
    assert not vmae.training
    assert (vmae.image_size, vmae.patch_size, vmae.latent.grid, vmae.latent.channels) == (16, 4, (4, 4), 5)
    assert (len(vmae.encoder.transformer.blocks), len(vmae.decoder.transformer.blocks)) == (2, 3)
    assert vmae.encoder.transformer.blocks[0].attn.num_heads == 12


def test_every_tensor_arrives_once(official):
    numbered = {key: torch.full_like(value, number) for number, (key, value) in enumerate(official.items())}
    state = ldbench.load_official("vmae_f8d16", numbered).state_dict()
    arrived = {key: value.unique().item() for key, value in state.items() if key != "decoder.mask_token"}
    assert sorted(arrived.values()) == list(range(len(official)))
    order = list(official)
    assert order[int(arrived["encoder.positions"])] == "pos_embed"
    assert order[int(arrived["decoder.positions"])] == "decoder_pos_embed"
    assert order[int(arrived["encoder.transformer.norm.weight"])] == "norm.weight"
    assert order[int(arrived["decoder.transformer.blocks.2.mlp.fc1.bias"])] == "decoder_blocks.2.mlp.fc1.bias"


def test_the_tables_of_the_file_win_over_computed_ones(official):
    vmae = ldbench.load_official("vmae_f8d16", official)
    assert torch.equal(vmae.encoder.positions, official["pos_embed"])
    assert torch.equal(vmae.decoder.positions, official["decoder_pos_embed"])


@pytest.mark.parametrize("size", [128, 256])
def test_the_image_size_of_the_papers_models_is_that_of_their_tables(size):
    manifest = json.loads((MANIFESTS / f"vmae_f8d16_{size}_inference.json").read_text())
    vmae = ldbench.load_official("vmae_f8d16", {key: torch.zeros(shape) for key, shape in manifest.items()})
    assert vmae.image_size == size
    assert vmae.latent.grid == (size // 8, size // 8)
    assert vmae.latent.channels == 16


def test_every_layout_of_the_file_gives_the_same_model(official, images, tmp_path):
    expected = ldbench.load_official("vmae_f8d16", official)
    folder = tmp_path / "huggingface"
    folder.mkdir()
    (folder / "README.md").write_text("a model")
    save_file(official, folder / "model.safetensors")
    save_file(official, tmp_path / "vmae.safetensors")
    torch.save(official, tmp_path / "bare.pth")
    torch.save({"state_dict": official}, tmp_path / "nested.pt")
    torch.save({f"module.{key}": value for key, value in official.items()}, tmp_path / "parallel.pth")
    torch.save(
        {"model": {f"module.{key}": value for key, value in official.items()}}, tmp_path / "parallel_training.pth"
    )
    for source in sorted(tmp_path.iterdir()):
        assert same(ldbench.load_official("vmae_f8d16", source), expected), source
        assert same(ldbench.load_official("vmae_f8d16", str(source)), expected), source
    with torch.no_grad():
        assert expected.decode(expected.encode(images).mean).isfinite().all()


def test_a_training_checkpoint_opens_at_its_model_and_leaves_the_perceptual_network_behind(official, tmp_path):
    checkpoint = trained(official)
    torch.save(checkpoint, tmp_path / "checkpoint-90.pth")
    vmae = ldbench.load_official("vmae_f8d16", tmp_path / "checkpoint-90.pth")
    assert same(vmae, ldbench.load_official("vmae_f8d16", official), but="mask_token")
    assert torch.equal(vmae.decoder.mask_token, torch.full((1, 1, 24), 0.5))
    assert not any("perceptual" in key for key in vmae.state_dict())
    assert same(ldbench.load_official("vmae_f8d16", checkpoint), vmae), "the same checkpoint, already in memory"


def test_opening_a_checkpoint_does_not_widen_what_torch_trusts(official, tmp_path):
    trusted = set(torch.serialization.get_safe_globals())
    torch.save(trained(official), tmp_path / "checkpoint.pth")
    ldbench.load_official("vmae_f8d16", tmp_path / "checkpoint.pth")
    assert set(torch.serialization.get_safe_globals()) == trusted


def test_a_file_without_a_mask_token_gets_zeros_that_no_unmasked_pass_reads(official, images):
    without = ldbench.load_official("vmae_f8d16", official)
    having = ldbench.load_official("vmae_f8d16", official | {"mask_token": torch.ones(1, 1, 24)})
    assert not without.decoder.mask_token.any()
    with torch.no_grad():
        assert torch.equal(without(images, eps=torch.zeros(1)).images, having(images, eps=torch.zeros(1)).images)


def test_the_state_dict_handed_over_is_left_alone(official):
    keys = list(official)
    vmae = ldbench.load_official("vmae_f8d16", official)
    vmae.encoder.to_latent.weight.data.zero_()
    vmae.encoder.positions.zero_()
    assert list(official) == keys
    assert official["to_latent.weight"].any()
    assert official["pos_embed"].any()


@pytest.mark.parametrize(
    "lost", ["pos_embed", "to_latent.bias", "norm.weight", "blocks.0.attn.qkv.weight", "decoder_blocks.2.mlp.fc2.bias"]
)
def test_a_missing_tensor_is_named(official, lost):
    del official[lost]
    with pytest.raises(ValueError, match=f"no vmae_f8d16: missing {lost}. Expected https"):
        ldbench.load_official("vmae_f8d16", official)


def test_a_lost_block_in_the_middle_is_missed(official):
    state = {key: value for key, value in official.items() if not key.startswith("decoder_blocks.1.")}
    with pytest.raises(ValueError, match=r"missing decoder_blocks\.1\."):
        ldbench.load_official("vmae_f8d16", state)


@pytest.mark.parametrize("foreign", ["cls_token", "head.weight", "blocks.0.ls1.gamma", "decoder_pred.weight"])
def test_a_tensor_that_vmae_does_not_have_is_named(official, foreign):
    with pytest.raises(ValueError, match=f"unknown {foreign}. Expected https"):
        ldbench.load_official("vmae_f8d16", official | {foreign: torch.zeros(1)})


def test_a_block_without_a_number_is_unknown(official):
    with pytest.raises(ValueError, match=r"no vmae_f8d16: unknown blocks\.first\.weight"):
        ldbench.load_official("vmae_f8d16", official | {"blocks.first.weight": torch.zeros(1)})


def test_a_block_number_out_of_all_proportion_costs_no_memory(official):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="These tensors are no vmae_f8d16"):
            ldbench.load_official("vmae_f8d16", official | {"blocks.20000.norm1.weight": torch.zeros(1)})
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("key", "shape", "ours"),
    [
        (
            "blocks.1.mlp.fc1.weight",
            (96, 23),
            r"encoder\.transformer\.blocks\.1\.mlp\.fc1\.weight \(96, 23\), expected \(96, 24\)",
        ),
        ("pos_embed", (1, 17, 24), r"encoder\.positions \(1, 17, 24\), expected \(1, 16, 24\)"),
        ("decoder_pos_embed", (1, 64, 24), r"decoder\.positions \(1, 64, 24\), expected \(1, 16, 24\)"),
        ("to_latent.weight", (12, 24), r"encoder\.to_latent\.weight \(12, 24\), expected \(10, 24\)"),
        ("mask_token", (1, 1, 25), r"decoder\.mask_token \(1, 1, 25\), expected \(1, 1, 24\)"),
    ],
)
def test_a_wrong_shape_is_reported_with_the_right_one(official, key, shape, ours):
    with pytest.raises(ValueError, match=f"1 of another shape .first: {ours}"):
        ldbench.load_official("vmae_f8d16", official | {key: torch.zeros(shape)})


@pytest.mark.parametrize(
    "key", ["from_latent.weight", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"]
)
def test_a_tensor_without_dimensions_is_refused_with_a_sentence(official, key):
    with pytest.raises(ValueError, match="shape"):
        ldbench.load_official("vmae_f8d16", official | {key: torch.tensor(1.0)})


class Intruder:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Foreign:
    """A class that no loader knows."""


@pytest.mark.parametrize("key", ["model", "args"])
@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch_save"])
def test_a_malicious_pickle_is_refused_and_its_code_does_not_run(official, tmp_path, key, plain):
    path, trace = tmp_path / "vmaef8d16.pth", tmp_path / "trace"
    checkpoint = {"model": official} | {key: Intruder(f"touch {trace}")}
    if plain:
        path.write_bytes(pickle.dumps(checkpoint, protocol=2))
    else:
        torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"vmaef8d16.pth is not a weights file that is safe to read.*\.safetensors"):
        ldbench.load_official("vmae_f8d16", path)
    assert not trace.exists()
    if plain:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trace.exists(), "the file would have run its code elsewhere"


def test_a_foreign_class_is_refused(official, tmp_path, monkeypatch):
    monkeypatch.setattr(Foreign, "__module__", "__main__")
    monkeypatch.setattr("__main__.Foreign", Foreign, raising=False)
    torch.save({"model": official, "args": Foreign()}, tmp_path / "vmae.pth")
    with pytest.raises(ValueError, match=r"not a weights file that is safe to read"):
        ldbench.load_official("vmae_f8d16", tmp_path / "vmae.pth")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.pth", b"<!DOCTYPE html><html>Google Drive can't scan this file for viruses</html>"),
        ("empty.pth", b""),
        ("cut.pth", b"PK\x03\x04 and nothing more"),
        ("stop.pth", b"\x80\x02."),
        ("page.safetensors", b"<!DOCTYPE html>"),
        ("empty.safetensors", b""),
    ],
)
def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not a weights file"):
        ldbench.load_official("vmae_f8d16", tmp_path / name)


def test_files_without_a_state_dict_are_refused_with_what_they_hold(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list.pth holds a list. Expected a state dict"):
        ldbench.load_official("vmae_f8d16", tmp_path / "list.pth")
    torch.save({"epoch": 3, "history": [1.0]}, tmp_path / "log.pth")
    with pytest.raises(ValueError, match=r"No tensors in .*log\.pth; found epoch, history"):
        ldbench.load_official("vmae_f8d16", tmp_path / "log.pth")


def test_a_path_without_weights_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere.pth. Expected a"):
        ldbench.load_official("vmae_f8d16", tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"holds no weights, but .* Expected a file ending in"):
        ldbench.load_official("vmae_f8d16", tmp_path)


def test_without_a_source_the_error_names_the_download():
    with pytest.raises(
        ValueError, match=r"not on a hub. Download vmaef8d16.pth .* Then call load_official\('vmae_f8d16', PATH\)"
    ):
        ldbench.load_official("vmae_f8d16")


def test_an_unknown_name_is_refused_with_the_known_ones(official):
    with pytest.raises(
        ValueError, match=r"no official model named 'vmae'\..*Known: .* \(ldbench\.list_official\(\) has all"
    ):
        ldbench.load_official("vmae", official)


def test_every_listed_model_has_source_licence_citation_and_a_way_to_get_it():
    listed = ldbench.list_official()
    assert "vmae_f8d16" in listed
    for name, entry in listed.items():
        assert entry.source.startswith("https://"), name
        assert entry.licence, name
        assert "arXiv:" in entry.citation or "https://" in entry.citation, name
        assert entry.where.endswith("."), name
