"""Each family of generators and each objective learns a mixture with a closed form; every sampler carries noise to it.

Run with `-s` it prints, for every sampler, the sliced Wasserstein distance of its samples to the mixture in units of
that between two sets of true samples, and writes a picture for each family where LDBENCH_PICTURES says.
"""

import math
import os
import time
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot as plt

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.pipeline import get_generator
from ldbench.pipeline.generator_plan import plan_generator
from ldbench.sampling.guidance import Unguided
from ldbench.sampling.noise import NoiseStream

NUM_MODES, NUM_CLASSES, RADIUS, DEVIATION = 8, 4, 4.0, 0.35
NUM_SAMPLES, NUM_DIRECTIONS = 1600, 64
SIZE = [
    "generator.backbone.width=64",
    "generator.backbone.depth=3",
    "generator.backbone.num_heads=4",
    "generator.batch_size=512",
]
STEPS = [
    "generator.max_steps=2000",
    "generator.optimizer.betas=[0.9,0.99]",
    "generator.ema_decays=[0.995]",
    "generator.exported_decay=0.995",
]
FAMILIES = {  # overrides, and how many options of `sampler` work at least
    "dit": (["generator=dit"], 6),
    "sit": (["generator=sit"], 6),
    "lightningdit": (["generator=lightningdit"], 6),
    "ditdh": (["generator=ditdh"], 6),
    # steps near the data weigh most, and take longer
    "data_prediction": (["generator=lightningdit", "objective=flow_matching_data", "generator.max_steps=4000"], 6),
    "inner_head": (["generator=lightningdit", "+generator.backbone.inner_block=2"], 6),
    "meanflow": (
        [
            "generator=meanflow",
            "objective.power=0",  # two numbers are too few for the adaptive weight
            "times.mean=0",
            "times.std=1.3",  # whole intervals, which one step needs, are rare among the paper's
            "generator.optimizer.lr=7e-4",
            "generator.max_steps=4000",
        ],
        1,
    ),
}


def mixture(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (n, 1, 2) of eight Gaussians on a circle around (1, -2), opposite ones being of one class; and their
    classes.
    """
    rng = torch.Generator().manual_seed(seed)
    mode = torch.arange(count) % NUM_MODES
    angle = mode * (2 * math.pi / NUM_MODES)
    centre = torch.tensor([1.0, -2.0]) + RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return (centre + DEVIATION * torch.randn(count, 2, generator=rng))[:, None], mode % NUM_CLASSES


def sliced_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The sliced Wasserstein distance between as many points (n, 2)."""
    angle = torch.arange(NUM_DIRECTIONS) * (math.pi / NUM_DIRECTIONS)
    directions = torch.stack([angle.cos(), angle.sin()])  # (2, directions)
    return float(((a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values).square().mean().sqrt())


def samples_of(generator: Generator, name: str) -> torch.Tensor | None:
    """Samples of an option of the group `sampler`, as its yaml has it; None where it cannot work."""
    made = instantiate(Registry().option("sampler", name))
    try:
        generator.check(made, Unguided())
    except ValueError:
        return None
    stream = NoiseStream(1, range(NUM_SAMPLES))
    y = torch.arange(NUM_SAMPLES) % NUM_MODES % NUM_CLASSES
    return generator.sample(stream.normal(0, (NUM_SAMPLES, 1, 2)), y, made, Unguided(), stream=stream)[:, 0]


def draw(found: dict[str, torch.Tensor], truth: torch.Tensor, path: Path) -> None:
    """The samples of each sampler over the truth."""
    figure, axes = plt.subplots(
        2, -(-len(found) // 2), figsize=(2.6 * -(-len(found) // 2), 5.4), squeeze=False, layout="constrained"
    )
    for axis, (name, points) in zip(axes.flat, found.items(), strict=False):
        axis.scatter(*truth.T, s=1, color="#d3d7cf")
        axis.scatter(*points.T, s=1, color="#3465a4")
        axis.set(title=name, xlim=(-5, 7), ylim=(-8, 4), xticks=[], yticks=[], aspect="equal")
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_a_mixture_and_every_sampler_carries_noise_to_it(family: str, tmp_path: Path) -> None:
    chosen, num_samplers = FAMILIES[family]
    overrides = [*SIZE, *STEPS, *chosen, "trainer.accelerator=cpu", f"paths.root={tmp_path}"]
    latents = TensorLatents(*mixture(8000, seed=0), latent=LatentSpec(1, 2, (1, 1)), num_classes=NUM_CLASSES)
    began = time.monotonic()
    folder = get_generator.train_plan(plan_generator(ldbench.compose("train", overrides), latents)).folder
    seconds, generator = time.monotonic() - began, ldbench.load(folder)
    truth, again = (mixture(NUM_SAMPLES, seed=seed)[0][:, 0] for seed in (2, 3))
    floor = sliced_distance(truth, again)
    found = {
        name: samples
        for name in sorted(Registry().options("sampler"))
        if (samples := samples_of(generator, name)) is not None
    }
    distances = {name: sliced_distance(samples, truth) for name, samples in found.items()}
    round_one = sliced_distance(truth, gaussian_like(truth))
    told = f"distance between two true sets {floor:.4f}, to a round Gaussian {round_one:.3f}"
    print(f"\n{family}, trained in {seconds:.0f} s: {told}")
    for name, distance in distances.items():
        print(f"  {name:24} {distance:.4f}  ({distance / floor:.1f} x)")
    if "LDBENCH_PICTURES" in os.environ:
        draw(found, truth, Path(os.environ["LDBENCH_PICTURES"]) / f"mixture_{family}.png")
    assert len(found) >= num_samplers
    assert max(distances.values()) < 0.3, distances


def gaussian_like(points: torch.Tensor) -> torch.Tensor:
    """As many points of the Gaussian with the same mean and covariance."""
    chol = torch.linalg.cholesky(torch.cov(points.T))
    return points.mean(dim=0) + torch.randn(len(points), 2, generator=torch.Generator().manual_seed(4)) @ chol.T
