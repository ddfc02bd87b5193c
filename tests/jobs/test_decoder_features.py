"""Decoder features: the input of the output layer in transformers, and none if no module works on the grid."""

import pytest
import torch

import ldbench
from ldbench.config.components import instantiate
from ldbench.jobs._decoder_features import decoder_features


def tokenizer_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    node = ldbench.compose("train", [f"tokenizer={name}"]).tokenizer
    return instantiate(node.model, image_size=node.image_size).eval()


@pytest.mark.parametrize("name", ["vmae", "maetok"])
def test_of_a_transformer_they_are_the_input_of_its_output_layer(name: str) -> None:
    tokenizer = tokenizer_of(name)
    recorded = []
    tokenizer.decoder.to_pixels.register_forward_hook(lambda module, inputs, output: recorded.append(inputs[0]))
    z = torch.randn(2, tokenizer.latent.num_tokens, tokenizer.latent.channels)
    with torch.no_grad():
        features = decoder_features(tokenizer, z)
    assert torch.equal(features, recorded[0])
    assert features.shape[1] == tokenizer.patch_grid[0] * tokenizer.patch_grid[1]


def test_of_a_convolutional_decoder_they_are_a_map_on_the_latents_grid() -> None:
    tokenizer = tokenizer_of("vavae")
    with torch.no_grad():
        features = decoder_features(tokenizer, torch.randn(2, tokenizer.latent.num_tokens, tokenizer.latent.channels))
    assert features.shape[:2] == (2, tokenizer.latent.num_tokens)
    assert features.shape[2] > tokenizer.latent.channels


def test_the_identity_has_none_and_no_hook_remains() -> None:
    tokenizer = tokenizer_of("identity")
    assert decoder_features(tokenizer, torch.randn(2, tokenizer.latent.num_tokens, tokenizer.latent.channels)) is None
    vmae = tokenizer_of("vmae")
    decoder_features(vmae, torch.randn(1, vmae.latent.num_tokens, vmae.latent.channels))
    assert not any(module._forward_hooks for module in vmae.modules())
