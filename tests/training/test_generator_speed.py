"""The cost of released sizes on one CPU thread: samples, against evaluating networks twice, and training steps.

To see the figures:

python -m pytest -q -n0 -s -m slow tests/training/test_generator_speed.py
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.hardware import needs_bf16
from torch import Tensor, nn

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.pipeline.generator_plan import build_generator

LATENT = LatentSpec(256, 32, (16, 16))  # f16d32
STEPS, IMAGES = 25, 4
ROOT = Path(__file__).parents[2]

STEP = """
import resource, sys, time
import torch
from tests.training.test_generator_speed import LATENT, lightningdit_b_1
torch.set_num_threads(1)
precision, kind = sys.argv[1:]
generator = lightningdit_b_1()
if kind == "compiled":
    generator.backbone.compile()
optimizer = torch.optim.AdamW(generator.parameters(), lr=2e-4)
z, y, seconds = torch.randn(8, LATENT.num_tokens, LATENT.channels), torch.arange(8), []
for step in range(4):
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = sum(term.mean() for term in generator.loss(z, y, step=step).values())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - started)
print(f"  {precision} {kind}: {min(seconds[1:]):.1f} s a step (the first {seconds[0]:.0f} s), "
      f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB at the peak")
"""


def lightningdit_b_1() -> Generator:
    """LightningDiT-B/1 on normalized latents, with no weights of zero."""
    torch.manual_seed(0)
    generator = build_generator(ldbench.compose("train", ["generator=lightningdit_b_1"]), LATENT, num_classes=1000)
    generator.normaliser = Normalizer.from_scale(1.0, channels=LATENT.channels)
    for parameter in generator.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return generator


class Twice(nn.Module):
    """A network that is called twice for each answer, as by code that asks anew for the score."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.null_class = network.null_class
        self.learned_variance = network.learned_variance

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.network(x, t, y)
        return self.network(x, t, y)


def part(group: str, option: str, **changes: object) -> Callable:
    """A component of the config, as its yaml has it but for the changes."""
    return instantiate(Registry().option(group, option), **changes)


@pytest.mark.slow
def test_samples_cost_no_call_twice() -> None:
    generator, threads = lightningdit_b_1().eval(), torch.get_num_threads()
    noise, y, increments = torch.randn(IMAGES, 256, 32), torch.arange(IMAGES), torch.randn(STEPS, IMAGES, 256, 32)
    called: list[int] = []
    generator.backbone.register_forward_pre_hook(lambda module, inputs: called.append(len(inputs[0])))
    euler = part("sampler", "euler_lightningdit", num_steps=STEPS, last_step="none")
    sde = part("sampler", "euler_maruyama", num_steps=STEPS - 1)
    within = part("guidance", "cfg_lightningdit_800ep")
    always = part("guidance", "cfg_lightningdit_800ep", low=0.0)
    field, twice = generator.field(), generator.objective.field(Twice(generator.backbone))
    runs = {
        "Euler, guided in LightningDiT's interval": lambda: euler(within(field), noise, y),
        "Euler, both branches always": lambda: euler(always(field), noise, y),
        "SDE, velocity and score from one call": lambda: sde(field, noise, y, increments=increments),
        "SDE, called for each": lambda: sde(twice, noise, y, increments=increments),
    }
    print(f"\nLightningDiT-B/1, {STEPS} steps of {IMAGES} images:")
    items = {}
    try:
        torch.set_num_threads(1)
        for name, run in runs.items():
            called.clear()
            started = time.perf_counter()
            with torch.no_grad():
                run()
            items[name] = sum(called)
            print(
                f"  {name}: {time.perf_counter() - started:.0f} s, {len(called)} calls, {items[name]} items", flush=True
            )
    finally:
        torch.set_num_threads(threads)
    assert list(items.values()) == [164, 200, 100, 200]  # 9 of 25 steps start before the interval


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_a_training_step_runs_in_either_precision_eager_and_compiled(precision: str) -> None:
    print("\nLightningDiT-B/1, one step of 8 latents:")
    for kind in ("eager", "compiled"):
        result = subprocess.run(
            [sys.executable, "-c", STEP, precision, kind], cwd=ROOT, check=True, capture_output=True, text=True
        )
        print(result.stdout, end="", flush=True)
