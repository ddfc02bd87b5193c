"""The weights of a folder or a repository: found under the names that people use, and only these are downloaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from tests.artifacts.hub_server import Hub, sha

from ldbench.artifacts import weights
from ldbench.artifacts.weight_names import choose_weights

VAE = "vae/diffusion_pytorch_model.safetensors"
WEIGHTS = save({"w": torch.ones(2)})


@pytest.mark.parametrize(
    ("names", "inside", "chosen"),
    [
        (["config.json", "pytorch_model.bin", "model.safetensors"], "", "model.safetensors"),
        (["vae.pt", "latents_stats.pt", "README.md"], "", "vae.pt"),
        (["last.ckpt", "training_args.bin"], "", "last.ckpt"),
        (
            ["model_index.json", "vae/diffusion_pytorch_model.safetensors"],
            "",
            "vae/diffusion_pytorch_model.safetensors",
        ),
        (
            ["vae/diffusion_pytorch_model.safetensors", "unet/model.safetensors"],
            "vae",
            "vae/diffusion_pytorch_model.safetensors",
        ),
        (["a.pt", "b.pt"], "b.pt", "b.pt"),
        (["ckpt/a.pt", "ckpt/b.pt"], "ckpt/b.pt", "ckpt/b.pt"),
        (["top.pt", "old/a.pt", "old/b.pt"], "", "top.pt"),
    ],
)
def test_a_known_name_or_the_only_file_is_chosen(names: list[str], inside: str, chosen: str) -> None:
    assert choose_weights(names, inside, "somewhere") == chosen


@pytest.mark.parametrize(
    ("names", "inside", "message"),
    [
        (["b.pt", "a.pt"], "", r"somewhere holds 2 files of weights: a\.pt, b\.pt\. .* as in somewhere/a\.pt\."),
        (
            ["vae/model.safetensors", "unet/model.safetensors"],
            "",
            r"2 files of weights: unet/model\.safetensors, vae/.* as in somewhere/unet/model\.safetensors\.",
        ),
        ([f"{i}.pt" for i in range(20)], "", r"holds 20 files of weights: .*, \.\.\.\. Name"),
    ],
)
def test_of_several_files_none_is_guessed(names: list[str], inside: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_weights(names, inside, "somewhere")


@pytest.mark.parametrize("names", [[], ["README.md"], ["latents_stats.pt"], [".hidden.pt"], ["a/b/deep.pt"]])
def test_no_weights_are_no_file(names: list[str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no weights, but .*\.safetensors, \.pt, \.pth, \.ckpt, \.bin"):
        choose_weights(names, "", "somewhere")


def test_a_part_that_is_not_there_is_no_file() -> None:
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        choose_weights(["vae/model.safetensors"], "unet", "somewhere")


def test_a_folder_is_looked_through(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "mine.safetensors").write_bytes(WEIGHTS)
    assert weights.locate(tmp_path) == tmp_path / "vae" / "mine.safetensors"
    assert weights.read_weights(tmp_path)["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "source", ["hf://them/flux/vae", "hf://them/flux/vae@main", "hf://them/flux/vae/model.safetensors"]
)
def test_a_part_of_a_repository_is_downloaded_alone(source: str, server: Hub) -> None:
    files = {"transformer/model.safetensors": b"much", "model_index.json": b"{}"}
    files |= {"vae/model.safetensors": WEIGHTS, "vae/config.json": b'{"scaling_factor": 0.3611}'}
    server.repos["them/flux"] = [files]
    assert weights.read_weights(source)["w"].tolist() == [1.0, 1.0]
    assert weights.read_settings(source) == {"scaling_factor": 0.3611}
    assert not [path for path in server.asked if "transformer" in path]


def test_a_revision_is_that_revision(server: Hub) -> None:
    server.repos["them/vae"] = [
        {"old.pt": b"", "vae.safetensors": save({"w": torch.zeros(2)})},
        {"vae.safetensors": WEIGHTS},
    ]
    assert weights.read_weights("them/vae")["w"].tolist() == [1.0, 1.0]
    first = f"hf://them/vae/vae.safetensors@{sha('them/vae', 0)}"
    assert weights.read_weights(first)["w"].tolist() == [0.0, 0.0]


def test_several_files_of_a_repository_are_listed_before_anything_is_downloaded(server: Hub) -> None:
    server.repos["them/both"] = [{"ema.pt": b"", "raw.pt": b""}]
    with pytest.raises(
        ValueError, match=r"^hf://them/both holds 2 files of weights: ema\.pt, raw\.pt\. .* hf://them/both/ema\.pt\."
    ):
        weights.locate("hf://them/both")
    assert not [path for path in server.asked if "resolve" in path or path.endswith(".pt")]


def test_what_was_downloaded_is_found_without_a_network(server: Hub) -> None:
    server.repos["them/vae"] = [{"vae.safetensors": WEIGHTS}]
    first = weights.locate("hf://them/vae")
    server.shutdown()
    server.server_close()
    assert weights.locate("hf://them/vae") == first


@pytest.mark.parametrize("source", ["hf://them", "hf://them/vae/../../other", "hf://th em/vae"])
def test_what_names_no_repository_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"A repository on the hub is owner/name|leads out of its repository"):
        weights.locate(source)
