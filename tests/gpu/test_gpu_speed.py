"""What settings do for the speed of a training step on a graphics processor, and how its precisions learn. To see the figures:

python -m pytest -q -n0 -s -m "gpu and slow" tests/gpu/test_gpu_speed.py
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

import ldbench
from ldbench import generator_training, trial
from ldbench.analysis.gmm.em import fit
from ldbench.analysis.gmm.mixture import Mixture
from ldbench.analysis.gmm.points import HeldPoints
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.generator_plan import make_generator_plan
from ldbench.jobs.costs import matrix_rate
from ldbench.results.figures import read_logs

pytestmark = pytest.mark.slow

F16D32 = LatentSpec(256, 32, (16, 16))
COMPILED = ["trainer.compile=true"]
BF16 = ["trainer.precision=bf16"]
OTHERWISE = ("seconds", "images", "operations", "peak_memory")  # of what is told, no parts of a step's time
SETTINGS: Mapping[str, list[str]] = {
    "fp32": [],
    "tf32": ["trainer.precision=tf32"],
    "bf16": BF16,
    "bf16, compiled": [*BF16, *COMPILED],
    "bf16, compiled, resident": [*BF16, *COMPILED, "trainer.resident=true"],
    "bf16, compiled, 4 workers": [*BF16, *COMPILED, "trainer.workers=4"],
    "bf16, compiled, not deterministic": [*BF16, *COMPILED, "trainer.deterministic=false"],
    "bf16, compiled, fused AdamW": [*BF16, *COMPILED],
}


def latents(count: int = 2048) -> TensorLatents:
    """Of ten classes, each around a smooth picture of its own."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(10, 32, 4, 4, generator=rng)
    means = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic").flatten(2).mT
    y = torch.arange(count) % 10
    return TensorLatents(means[y] + 0.5 * torch.randn(count, 256, 32, generator=rng), y, latent=F16D32, num_classes=1000)


def timed(words: list[str], folder: Path, *, steps: int) -> Mapping[str, float]:
    """What `StepTimes` tells of some steps of a training."""
    cfg = ldbench.compose("train", ["trainer.accelerator=cuda", "callbacks.checkpoint.every=100000", *words])
    planned = make_generator_plan(trial.shortened(cfg, steps, str(folder), ()), latents())
    generator_training.train(planned, None)
    (told,) = trial.read(planned.run_folder).values()
    return told


def test_what_settings_do_for_a_step_of_lightningdit_b_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = {name: matrix_rate(torch.device("cuda"), name) for name in ("fp32", "tf32", "bf16")}
    print("\nproducts of matrices of 8192: " + ", ".join(f"{name} {value / 1e12:.0f} TFLOP/s" for name, value in rate.items()))
    for name, words in SETTINGS.items():
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        with monkeypatch.context() as patched:
            if "fused" in name:
                patched.setattr(torch.optim, "AdamW", partial(torch.optim.AdamW, fused=True))
            told = timed(["generator=lightningdit_b_1", "generator.batch_size=128", *words], tmp_path / name, steps=20)
        used = told["operations"] / told["seconds"] / rate[name.partition(",")[0]]
        parts = ", ".join(f"{part} {1000 * value:.1f}" for part, value in told.items() if part not in OTHERWISE)
        print(f"{name:34s} {1000 * told['seconds']:7.1f} ms {told['peak_memory'] / 2**30:6.1f} GiB {100 * used:5.1f} %   ({parts})", flush=True)
        assert 0 < used < 1


def test_precisions_learn_alike(tmp_path: Path) -> None:
    curves: dict[str, list[float]] = {}
    ways = {"fp32": [], "tf32": ["trainer.precision=tf32"], "bf16": BF16, "bf16, compiled": [*BF16, *COMPILED]}
    for name, words in ways.items():
        torch._dynamo.reset()
        said = ["generator=lightningdit_b_1", "generator.batch_size=32", "generator.max_steps=100", "trainer.log_every=1", *words]
        said += ["callbacks.samples.every=0", "callbacks.checkpoint.every=100000", "trainer.accelerator=cuda", f"paths.runs={tmp_path / name}"]
        cfg = ldbench.compose("train", said)
        cfg.callbacks = {}
        planned = make_generator_plan(cfg, latents())
        generator_training.train(planned, None)
        curves[name] = list(read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))["train/loss"].values())
    print("\nmean loss of ten steps, LightningDiT-B/1, the same batches, times and noise: " + ", ".join(curves))
    for first in range(0, 100, 10):
        told = "  ".join(f"{sum(curve[first : first + 10]) / 10:8.4f}" for curve in curves.values())
        print(f"  {first + 1:3d} to {first + 10:3d}  {told}", flush=True)
    whole = torch.tensor(curves["fp32"])
    for name, curve in curves.items():
        assert (torch.tensor(curve) / whole - 1).abs().mean() < 0.02, name


def timed_em(run: Callable[[int], object], iterations: int) -> float:
    """The seconds of an iteration: of a long run less a short one."""
    run(1)
    took = []
    for steps in (1, 1 + iterations):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run(steps)
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return (took[1] - took[0]) / iterations


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_an_iteration_of_em_on_a_million_points(kind: str) -> None:
    count, dim, num = 1_000_000, 64, 100
    rng = torch.Generator(device="cuda").manual_seed(0)
    centres = 1.5 * torch.randn(num, dim, generator=rng, device="cuda")
    x = centres[torch.randint(num, (count,), generator=rng, device="cuda")] + 0.7 * torch.randn(count, dim, generator=rng, device="cuda")
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    means = x[torch.randperm(count, generator=rng, device="cuda")[:num]].double().cpu()
    ones = torch.ones_like(means) if kind == "diagonal" else torch.eye(dim, dtype=torch.float64).repeat(num, 1, 1)
    start = Mixture(kind, torch.full((1, num), 1 / num, dtype=torch.float64), means[None], ones[None])  # type: ignore[arg-type]
    points = HeldPoints(x)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = timed_em(lambda steps: fit(points, start, floor=1e-6, max_iter=steps, tolerance=0.0), 5)
    added = (torch.cuda.max_memory_allocated() - before) / 2**20
    print(f"\nEM, {kind}, {count:,} x {dim}, K = {num}: {1000 * seconds:.1f} ms an iteration, {added:.0f} MiB beside the points", flush=True)
    assert seconds > 0
