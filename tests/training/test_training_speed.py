"""The speed of a training step by its settings: where the defaults come from. To see the figures, on an idle machine:

python -m pytest -q -n0 -s -m slow tests/training/test_training_speed.py
"""

import copy
import ctypes.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
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
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.store import LatentStore
from ldbench.data.latents.writing import StoreWriter
from ldbench.pipeline import step_timing
from ldbench.pipeline.generator_plan import build_generator

pytestmark = pytest.mark.slow

SETTINGS = {
    "default": [],
    "two threads": ["trainer.threads=2"],
    "bf16": ["trainer.precision=bf16"],
    "compiled": ["trainer.compile=true"],
}
F16D32 = LatentSpec(256, 32, (16, 16))
DIGITS = LatentSpec(16, 4, (4, 4))
NUM_LATENTS, SHARD = 16_384, 2048


def best_of(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The seconds of each run, in turns, so that what disturbs one disturbs all; the best of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # the first is not like the others
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: min(all_) for name, all_ in seconds.items()}


def show(title: str, seconds: Mapping[str, float]) -> None:
    """A line with the first in milliseconds, and how much faster the others are."""
    first = next(iter(seconds.values()))
    summary = ", ".join(f"{name} {1000 * value:.2f} ms ({first / value:.2f}x)" for name, value in seconds.items())
    print(f"\n{title}: {summary}", end="", flush=True)


def generator_of(name: str, latent: LatentSpec, num_classes: int) -> Generator:
    """A generator by its name in the config, on normalized latents, with no weights of zero."""
    torch.manual_seed(0)
    generator = build_generator(ldbench.compose("train", [f"generator={name}"]), latent, num_classes=num_classes)
    for parameter in generator.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    generator.normaliser = Normalizer.from_scale(1.0, channels=latent.channels)
    return generator


def loss_of(generator: Generator, z: Tensor, y: Tensor) -> Tensor:
    """The terms of a batch, under draws of their own seed."""
    torch.manual_seed(0)
    return torch.stack([term.mean() for term in generator.loss(z, y, step=0).values()])


def step_of(generator: Generator, z: Tensor, y: Tensor, *, precision: str = "fp32") -> Callable[[], None]:
    """A training step."""
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-4)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = sum(term.mean() for term in generator.loss(z, y, step=0).values())
        assert isinstance(loss, Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@pytest.mark.parametrize("tokenizer", ["vmae", "maetok", "vavae"])
def test_where_a_tokenizers_step_goes_and_what_settings_do(tokenizer: str, tmp_path: Path) -> None:
    found = {}
    for name, words in SETTINGS.items():
        cfg = ldbench.compose(
            "train", [f"tokenizer={tokenizer}", "trainer.accelerator=cpu", f"paths.root={tmp_path / name}", *words]
        )
        found[name] = step_timing.time_tokenizer_steps(cfg, 12 if tokenizer == "vavae" else 30)
    for stage, times in found["default"].items():
        show(f"{tokenizer}, {stage}", {name: stages[stage]["seconds"] for name, stages in found.items()})
        phases = {name: value for name, value in times.items() if name not in ("seconds", "images", "operations")}
        parts = ", ".join(f"{name} {100 * value / times['seconds']:.1f} %" for name, value in phases.items())
        print(f"\n  of the default: {parts}", end="", flush=True)
        assert 0 < sum(phases.values()) <= 1.1 * times["seconds"]


@pytest.mark.parametrize("name", ["dit", "sit", "lightningdit"])
def test_what_settings_do_for_a_generators_step(name: str) -> None:
    z, y = torch.randn(64, DIGITS.num_tokens, DIGITS.channels), torch.arange(64) % 10
    compiled = generator_of(name, DIGITS, 10)
    compiled.backbone.compile()
    losses = [loss_of(generator, z, y) for generator in (generator_of(name, DIGITS, 10), compiled)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    steps = {
        "default": step_of(generator_of(name, DIGITS, 10), z, y),
        "bf16": step_of(generator_of(name, DIGITS, 10), z, y, precision="bf16"),
        "compiled": step_of(compiled, z, y),
    }
    show(f"{name}, a step of 64 latents of the digits", best_of(steps, 30))


@pytest.mark.parametrize("how", ["as it is", "whole", "one block for all"])
def test_how_long_compiling_lightningdit_b_1_takes(how: str, tmp_path: Path) -> None:
    script = """
import sys, time, torch
from torch import nn
from tests.training.test_training_speed import F16D32, generator_of, step_of
torch.set_num_threads(1)
backbone = (generator := generator_of("lightningdit_b_1", F16D32, 1000)).backbone
{
    "as it is": lambda: None,
    "whole": lambda: nn.Module.compile(backbone),
    "one block for all": backbone.compile,
}[sys.argv[1]]()
step, seconds = step_of(generator, torch.randn(2, 256, 32), torch.arange(2)), []
for _ in range(4):
    started = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - started)
print(seconds[0], min(seconds[1:]))
"""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script, how], capture_output=True, text=True, check=True, env=environment
    )
    first, later = map(float, result.stdout.split())
    print(
        f"\nLightningDiT-B/1, two latents, {how}: the first step {first:.1f} s, later ones {later:.2f} s",
        end="",
        flush=True,
    )
    assert later <= first


@pytest.mark.parametrize("size", ["digits", "LightningDiT-B/1"])
def test_every_kind_of_adamw_ends_in_the_same_weights(size: str) -> None:
    model: nn.Module = (
        generator_of("sit", DIGITS, 10) if size == "digits" else generator_of("lightningdit_b_1", F16D32, 1000)
    )
    kinds = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    models, runs = {}, {}
    for name, how in kinds.items():
        models[name] = copy.deepcopy(model)
        rng = torch.Generator().manual_seed(0)
        for parameter in models[name].parameters():
            parameter.grad = torch.randn(parameter.shape, generator=rng) if parameter.requires_grad else None
        runs[name] = torch.optim.AdamW(models[name].parameters(), lr=1e-4, **how).step
    show(f"AdamW, {size}", best_of(runs, 20 if size == "digits" else 5))
    for name in ("foreach", "fused"):
        for ours, theirs in zip(models["loop"].parameters(), models[name].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


STEPPING = """
import sys, time, torch
import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.runtime.memory import keep_freed_memory
from tests.training.test_training_speed import DIGITS, F16D32, generator_of, step_of
torch.set_num_threads(1)
assert sys.argv[2] == "as it is" or keep_freed_memory()
def of_tokenizer(name, count):
    model = instantiate(ldbench.compose("train", [f"tokenizer={name}"]).tokenizer.model, image_size=32)
    optimizer, images = torch.optim.AdamW(model.parameters()), torch.rand(count, 3, 32, 32) * 2 - 1
    def step():
        model(images).images.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return step
steps = {
    "sit": lambda: step_of(generator_of("sit", DIGITS, 10), torch.randn(64, 16, 4), torch.arange(64) % 10),
    "LightningDiT-B/1": lambda: step_of(
        generator_of("lightningdit_b_1", F16D32, 1000), torch.randn(1, 256, 32), torch.arange(1)
    ),
    "vmae": lambda: of_tokenizer("vmae", 32),
    "vavae": lambda: of_tokenizer("vavae", 16),
}
step = steps[sys.argv[1]]()
for _ in sys.stdin:
    started = time.perf_counter()
    step()
    print(time.perf_counter() - started, flush=True)
"""


@pytest.mark.parametrize(("name", "repeats"), [("sit", 60), ("vmae", 60), ("vavae", 20), ("LightningDiT-B/1", 4)])
def test_what_other_allocators_do_for_a_step(name: str, repeats: int) -> None:
    libraries = {allocator: ctypes.util.find_library(allocator) for allocator in ("jemalloc", "tcmalloc_minimal")}
    settings: dict[str, tuple[str, dict[str, str]]] = {"default": ("kept", {}), "glibc as it is": ("as it is", {})}
    settings |= {
        allocator: ("as it is", {"LD_PRELOAD": library}) for allocator, library in libraries.items() if library
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STEPPING, name]
    children = {
        key: subprocess.Popen([*command, how], env=environment | variables, **pipes)
        for key, (how, variables) in settings.items()
    }

    def step(child: subprocess.Popen[str]) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert float(child.stdout.readline()) > 0

    show(f"{name}, a step", best_of({key: partial(step, child) for key, child in children.items()}, repeats))
    for child in children.values():
        child.communicate()
        assert child.returncode == 0


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_channels_last_changes_speed_and_not_what_a_convolutional_tokenizer_says(precision: str) -> None:
    node = Registry().option("tokenizer", "vavae_f16d32").model
    images, states, runs, reconstructions = torch.rand(1, 3, 128, 128) * 2 - 1, {}, {}, {}
    for name, last in (("contiguous", False), ("channels last", True)):
        torch.manual_seed(0)
        tokenizer = instantiate(node, image_size=128, channels_last=last)

        def step(tokenizer: nn.Module = tokenizer, name: str = name) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                recon = tokenizer(images, eps=torch.zeros(()))
            recon.images.float().square().mean().backward()
            reconstructions[name] = recon.images.detach().float()

        states[name], runs[name] = tokenizer, step
    show(f"VA-VAE f16d32 at 128 px, forward and backward, {precision}", best_of(runs, 3))
    one, other = reconstructions.values()
    assert (one - other).norm() < {"fp32": 1e-3, "bf16": 0.15}[precision] * one.norm()


def test_the_data_path_of_a_step_of_lightningdit_b_1(tmp_path: Path) -> None:
    facts = {
        "tokenizer": "x",
        "tokenizer_digest": "00" * 32,
        "tokenizer_key": "00" * 32,
        "data": "noise",
        "fingerprint": "ab" * 32,
        "split": "train",
    }
    contents = Contents(**facts, num_classes=1000, preprocessing={}, flips=False, dtype="fp16", precision="fp32")
    writer = StoreWriter(tmp_path, contents, latent=F16D32, num_images=NUM_LATENTS, shard_size=SHARD)
    for shard in writer.missing():
        moments = torch.randn(
            SHARD, 2, F16D32.num_tokens, F16D32.channels, generator=torch.Generator().manual_seed(shard)
        )
        writer.write(shard, moments.half(), torch.arange(SHARD) % 1000)
    writer.finish()
    store = LatentStore.open(tmp_path)
    resident = store.resident(torch.device("cpu"))
    rows = torch.randint(NUM_LATENTS, (8,), generator=torch.Generator().manual_seed(0))
    mapped, held = (reader.batch(rows, seed=0, step=0) for reader in (store, resident))
    assert torch.equal(mapped[0], held[0])
    reading = {
        name: lambda reader=reader: reader.batch(rows, seed=0, step=0)
        for name, reader in (("mapped", store), ("resident", resident))
    }
    paths = best_of(reading, 50)
    show("8 latents of f16d32 from a store", paths)
    step = best_of({"step": step_of(generator_of("lightningdit_b_1", F16D32, 1000), *mapped)}, 2)["step"]
    print(
        f"\n  a step of LightningDiT-B/1 on them: {step:.2f} s; reading is {100 * paths['mapped'] / step:.3f} % of it",
        flush=True,
    )
