"""The network has the shapes of its latents, is trained by every parameter, and trains from the command line."""

import subprocess
import sys

import pytest
import torch

import ldbench
from ldbench.config.components import instantiate
from ldbench.core.backbone import Backbone
from ldbench.core.latent import LatentSpec


def build(*, learned_variance: bool = False) -> Backbone:
    """The network with the numbers of its yaml, for latents of 16 tokens with 4 channels and 10 classes."""
    node = ldbench.compose("train", ["tokenizer=vmae", "generator=example"]).generator.backbone
    facts = {"num_classes": 10, "has_null_class": True, "learned_variance": learned_variance}
    return instantiate(node, latent=LatentSpec(16, 4, (4, 4)), **facts)


@pytest.mark.parametrize("learned_variance", [False, True])
def test_predictions_have_the_shape_of_latents(learned_variance):
    x, t, y = torch.randn(3, 16, 4), torch.rand(3), torch.tensor([0, 9, 10])
    assert build(learned_variance=learned_variance)(x, t, y).shape == (3, 16, 8 if learned_variance else 4)


def test_every_parameter_is_trained():
    network = build()
    for parameter in network.parameters():  # some begin at zero, which hides others
        torch.nn.init.normal_(parameter, std=0.1)
    network(torch.randn(3, 16, 4), torch.rand(3), torch.tensor([0, 9, 10])).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_it_trains_and_is_measured(tmp_path):
    command = [sys.executable, "-m", "ldbench.train", "tokenizer=identity_p8", "generator=example", "data.subset=0.1"]
    command += ["trainer.limit_steps=2", "sampler.num_steps=2", f"paths.root={tmp_path}"]
    command += ["protocol=default", "protocol.num_samples=20"]  # no feature network has to be trained
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "records").glob("generate-*.json"))
