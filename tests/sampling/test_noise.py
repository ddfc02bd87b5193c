"""Noise streams: the same for an image in any batch, process and order, standard normal, and uncorrelated."""

import subprocess
import sys

import pytest
import torch

from ldbench.core.interpolants import Linear
from ldbench.sampling.noise import NoiseStream, increment
from ldbench.sampling.sde import ReverseSDE


@pytest.mark.parametrize("size", [1, 3, 8, 10])
def test_an_images_noise_is_the_same_in_any_batch(size):
    whole = NoiseStream(7, range(10)).normal(4, (10, 5, 3))
    parts = [NoiseStream(7, range(i, min(i + size, 10))) for i in range(0, 10, size)]
    assert torch.equal(torch.cat([part.normal(4, (len(part.indices), 5, 3)) for part in parts]), whole)


def test_it_is_the_same_in_any_order_of_images_and_steps():
    stream = NoiseStream(7, [3, 1, 2])
    later = stream.normal(9, (3, 5, 2))
    first = stream.normal(0, (3, 5, 2))
    assert torch.equal(NoiseStream(7, [1, 2, 3]).normal(0, (3, 5, 2))[[2, 0, 1]], first)
    assert torch.equal(NoiseStream(7, [3, 1, 2]).normal(9, (3, 5, 2)), later)


@pytest.mark.slow
def test_it_is_the_same_in_another_process_and_leaves_global_streams_alone():
    state = torch.get_rng_state()
    here = NoiseStream(2**40 + 1, [10**6]).normal(3, (1, 2, 2)).flatten().tolist()
    assert torch.equal(torch.get_rng_state(), state)
    script = "from ldbench.sampling.noise import NoiseStream\n"
    script += "print(NoiseStream(2**40 + 1, [10**6]).normal(3, (1, 2, 2)).flatten().tolist())"
    assert subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip() == str(here)


def test_seeds_images_and_steps_have_separate_noise_which_is_standard_normal():
    drawn = (
        torch.stack([NoiseStream(seed, range(4)).normal(step, (4, 500, 4)) for seed in range(3) for step in range(3)])
        .flatten(2)
        .flatten(0, 1)
    )
    assert drawn.dtype == torch.float32
    assert abs(float(drawn.mean())) < 5 / drawn.numel() ** 0.5
    assert abs(float(drawn.std()) - 1) < 5 / (2 * drawn.numel()) ** 0.5
    correlations = torch.corrcoef(drawn) - torch.eye(len(drawn))
    assert float(correlations.abs().max()) < 6 / drawn.shape[1] ** 0.5


def test_an_increment_comes_from_the_tensor_or_the_stream_in_the_states_precision():
    x = torch.zeros(2, 3, 1, dtype=torch.float64)
    given = torch.randn(5, 2, 3, 1)
    stream = NoiseStream(0, [4, 5])
    assert torch.equal(increment(2, x, stream=None, increments=given), given[2].double())
    assert torch.equal(increment(2, x, stream=stream, increments=None), stream.normal(3, x.shape).double()), (
        "step 0 is the initial noise"
    )


def test_a_noisy_sampler_gives_an_image_the_same_sample_in_any_batch(gaussian):
    settings = {"rule": "euler_maruyama", "diffusion": "sigma", "last_step": "mean", "dtype": "float32"}
    sampler = ReverseSDE(**settings, num_steps=12, norm=1.0, last_step_size=0.04, shift=1.0, margin=1e-3)

    def sample(indices):
        stream = NoiseStream(3, indices)
        noise = stream.normal(0, (len(indices), 4, 2))
        return sampler(gaussian.field(Linear(), "velocity"), noise, torch.zeros(len(indices)), stream=stream)

    whole = sample(list(range(7)))
    assert torch.equal(torch.cat([sample([i]) for i in range(7)]), whole)
    assert torch.equal(torch.cat([sample([0, 1, 2]), sample([3, 4, 5, 6])]), whole)


def test_missing_noise_is_refused(gaussian):
    x = torch.zeros(2, 3, 1)
    with pytest.raises(ValueError, match="Pass stream=NoiseStream"):
        increment(0, x, stream=None, increments=None)
    with pytest.raises(ValueError, match="only 1 increments"):
        increment(1, x, stream=None, increments=torch.zeros(1, 2, 3, 1))
    with pytest.raises(ValueError, match="The noise stream has 3 images, but the batch has 2"):
        NoiseStream(0, range(3)).normal(0, x.shape)
    with pytest.raises(ValueError, match="at least 0, got -1"):
        NoiseStream(-1, range(3))
