"""The network has the shapes of its latents, is trained by every parameter, and trains from the command line."""

import subprocess
import sys

import pytest
import torch
from ldbench_example.example import Example

from ldbench.core.latent import LatentSpec


def build(*, learned_variance: bool = False) -> Example:
    facts = {"num_classes": 10, "has_null_class": True, "learned_variance": learned_variance}
    return Example(latent=LatentSpec(16, 4, (4, 4)), width=32, depth=2, class_std=0.7, **facts)


@pytest.mark.parametrize("learned_variance", [False, True])
def test_predictions_have_the_shape_of_latents(learned_variance):
    x, t, y = torch.randn(3, 16, 4), torch.rand(3), torch.tensor([0, 9, 10])
    assert build(learned_variance=learned_variance)(x, t, y).shape == (3, 16, 8 if learned_variance else 4)


def test_every_parameter_is_trained():
    network = build()
    torch.nn.init.normal_(network.head.weight)  # it begins at zero, which hides the rest
    network(torch.randn(3, 16, 4), torch.rand(3), torch.tensor([0, 9, 10])).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_it_trains_and_is_measured(tmp_path):
    command = [sys.executable, "-m", "ldbench.train", "tokenizer=identity_p8", "generator=example", "data.subset=0.1"]
    command += ["trainer.limit_steps=2", "sampler.num_steps=2", "protocol.num_samples=20", f"paths.root={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "records").glob("generate-*.json"))
