"""The tokenizer has the shapes that it says, is trained by every parameter, and trains from the command line."""

import subprocess
import sys

import torch

import ldbench
from ldbench.config.components import instantiate
from ldbench.core.tokenizer import Tokenizer


def build() -> Tokenizer:
    """The tokenizer with the numbers of its yaml, at 32 px."""
    model = ldbench.compose("train", ["tokenizer=example"]).tokenizer.model
    return instantiate(model, image_size=32)


def test_latents_and_images_have_their_shapes():
    tokenizer, images = build(), torch.rand(2, 3, 32, 32) * 2 - 1
    spec = tokenizer.latent
    z = tokenizer.encode(images).mean
    assert z.shape == (2, spec.num_tokens, spec.channels)
    assert tokenizer.decode(z).shape == images.shape


def test_every_parameter_is_trained():
    tokenizer, images = build(), torch.rand(2, 3, 32, 32) * 2 - 1
    tokenizer(images).images.square().mean().backward()
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())


def test_it_trains_and_is_measured(tmp_path):
    command = [sys.executable, "-m", "ldbench.train", "tokenizer=example", "data.subset=0.1", "trainer.limit_steps=2"]
    command += ["protocol=default"]  # no feature network has to be trained
    done = subprocess.run([*command, f"paths.root={tmp_path}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (manifest,) = (tmp_path / "artifacts" / "tokenizers").glob("example-*/manifest.json")
    assert ldbench.load(manifest.parent).latent == build().latent
    assert list((tmp_path / "records").glob("reconstruct-*.json"))
