"""RAE from files of diffusers' AutoencoderRAE: in the names of several versions of transformers; what is refused."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tokenizers.diffusers_models import RAE_KINDS, rae_model
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

import ldbench
from ldbench.official.rae import convert
from ldbench.official.transformers_names import timm_name

SIZES = {"encoder_patch_size": 16, "encoder_input_size": 64, "image_size": 32, "decoder_num_attention_heads": 4}
OLD_NAMES = {  # of transformers 4, in the released files
    r"^encoder\.(encoder\.)?layers?\.(\d+)": r"encoder.encoder.layer.\2",
    r"(encoder\.layer\.\d+)\.attention\.q_proj": r"\1.attention.attention.query",
    r"(encoder\.layer\.\d+)\.attention\.k_proj": r"\1.attention.attention.key",
    r"(encoder\.layer\.\d+)\.attention\.v_proj": r"\1.attention.attention.value",
    r"(encoder\.layer\.\d+)\.attention\.o_proj": r"\1.attention.output.dense",
}
OLD_MAE = {
    r"(encoder\.layer\.\d+)\.mlp\.fc1": r"\1.intermediate.dense",
    r"(encoder\.layer\.\d+)\.mlp\.fc2": r"\1.output.dense",
}
OFFICIAL_DECODER = {  # diffusers' names of the decoder -> those of the official code
    r"\.attention\.to_q\.": ".attention.attention.query.",
    r"\.attention\.to_k\.": ".attention.attention.key.",
    r"\.attention\.to_v\.": ".attention.attention.value.",
    r"\.attention\.to_out\.0\.": ".attention.output.dense.",
}


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        for pattern, name in names.items():
            key = re.sub(pattern, name, key)
        found[key] = value
    return found


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-5


def tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    ("shape", "name"), [((1,), "one number"), ((128,), "channels"), ((128, 1, 1), "maps"), ((1, 128, 4, 4), "a batch")]
)
def test_statistics_of_any_shape_that_diffusers_takes_are_read(
    shape: tuple[int, ...], name: str, tmp_path: Path
) -> None:
    if shape == (128,):  # diffusers would broadcast it over columns
        state = {**rae_model("mae").state_dict(), "_latents_mean": torch.arange(128.0)}
        found = convert("rae", state, {"encoder_type": "mae", **SIZES})
        assert torch.equal(found.state["latent_mean"], torch.arange(128.0).expand(16, 128))
        return
    theirs = rae_model("mae", latents_mean=torch.randn(shape), latents_std=torch.rand(shape) + 0.5)
    theirs.save_pretrained(tmp_path)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        z = theirs.encode(images).latent
        close(ldbench.load_official("rae", tmp_path).encode(images * 2 - 1).mean, tokens(z))


@pytest.mark.parametrize("kind", RAE_KINDS)
def test_the_names_of_older_transformers_and_of_the_official_decoder_load_too(kind: str, tmp_path: Path) -> None:
    theirs = rae_model(kind)
    theirs.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    state = load_file(file)
    old = renamed(state, OLD_NAMES | (OLD_MAE if kind == "mae" else {}))
    assert len(old.keys() - state.keys()) >= 8
    save_file(renamed(old, OFFICIAL_DECODER), file)
    ours = ldbench.load_official("rae", tmp_path)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        z = theirs.encode(images).latent
        close(ours.encode(images * 2 - 1).mean, tokens(z))
        close((ours.decode(tokens(z)) + 1) / 2, theirs.decode(z).sample)
    save_file(old, file)  # the class itself, with the installed version's names
    adapted = ldbench.load_official("diffusers", tmp_path)
    with torch.no_grad():
        assert torch.equal(adapted.encode(images * 2 - 1).mean, tokens(z).contiguous())


@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_siglip_is_read_in_both_layouts_as_transformers_runs_it(prefix: str) -> None:
    """diffusers' class does not build it with the newer layout, so it is held against the vision model itself."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = SiglipVisionConfig(**sizes, patch_size=16, image_size=96)
    encoder = SiglipVisionModel(config).eval()
    norm = getattr(encoder, "post_layernorm", None) or encoder.vision_model.post_layernorm
    norm.weight = norm.bias = None
    state = {
        f"encoder.{prefix}{key.removeprefix('vision_model.')}": value for key, value in encoder.state_dict().items()
    }
    state |= {key: value for key, value in rae_model("mae").state_dict().items() if not key.startswith("encoder.")}
    settings = {**SIZES, "encoder_type": "siglip2"}
    state |= {"_latents_mean": torch.zeros(1), "_latents_std": torch.ones(1) - 1e-5}
    ours = built(state, settings)
    images = torch.rand(2, 3, 64, 64)
    normalized = ours.encoder.pixels.normalize(images)
    with torch.no_grad():
        close(ours.encoder.tokens(normalized), encoder(normalized, interpolate_pos_encoding=True).last_hidden_state)


def built(state: dict[str, Tensor], settings: dict) -> torch.nn.Module:
    from ldbench.artifacts import store

    found = convert("rae", state, settings)
    return store.build(store.Blueprint(found.group, found.component, found.keywords), found.state)


def test_what_is_no_rae_is_told_in_a_sentence(tmp_path: Path) -> None:
    theirs = rae_model("mae")
    theirs.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    state = load_file(file)
    save_file({key: value for key, value in state.items() if not key.startswith("encoder.")}, file)
    with pytest.raises(ValueError, match="no encoder, only a decoder"):
        ldbench.load_official("rae", tmp_path)
    save_file({key: value for key, value in state.items() if "decoder_pred" not in key}, file)
    with pytest.raises(ValueError, match=r"missing decoder\.to_pixels"):
        ldbench.load_official("rae", tmp_path)
    save_file(state | {"_latents_mean": torch.zeros(5, 4, 4)}, file)
    with pytest.raises(ValueError, match="latents_mean has the shape"):
        ldbench.load_official("rae", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"encoder_type": "resnet"}))
    with pytest.raises(ValueError, match="encoder_type 'resnet'"):
        ldbench.load_official("rae", tmp_path)


def test_names_that_are_of_no_transformer_stay() -> None:
    assert timm_name("something.else.weight") == "something.else.weight"
