"""The speed of a GPU in training, sampling, encoding and fitting mixtures, by settings, and losses by precision.

To see:

python -m pytest -q -n0 -s -m "gpu and slow" tests/gpu/test_gpu_speed.py
"""

import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import pytest
import timm
import torch

import ldbench
from ldbench.analysis.gmm.em import fit
from ldbench.analysis.gmm.mixture import Mixture
from ldbench.analysis.gmm.points import PointsInMemory
from ldbench.config.components import instantiate
from ldbench.core.latent import LatentSpec
from ldbench.data.tensor_latents import TensorLatents
from ldbench.jobs._benchmark import images_per_second, matrix_rate
from ldbench.jobs.throughput import decode, encode
from ldbench.pipeline import generator_training, step_timing
from ldbench.pipeline.generator_plan import build_guidance, build_sampler, plan_generator
from ldbench.results.figures import read_logs
from ldbench.runtime.device import compute_precision
from ldbench.sampling.noise import NoiseStream
from ldbench.training.generator_module import GeneratorModule

pytestmark = pytest.mark.slow

CUDA = torch.device("cuda")
F16D32 = LatentSpec(256, 32, (16, 16))
RAE = LatentSpec(256, 768, (16, 16))
DINOV2_B = "vit_base_patch14_dinov2.lvd142m"
BF16 = ["trainer.precision=bf16"]
COMPILED = [*BF16, "trainer.compile=true"]
RESIDENT = ["trainer.resident=true"]
NOT_DETERMINISTIC = [*COMPILED, "trainer.deterministic=false"]
SETTINGS: Mapping[str, list[str]] = {
    "bf16, compiled, not deterministic": NOT_DETERMINISTIC,
    "bf16, compiled": COMPILED,
    "bf16, compiled, AdamW not fused": COMPILED,
    "bf16": BF16,
    "tf32": ["trainer.precision=tf32"],
    "fp32": [],
}
OTHERWISE = ("seconds", "images", "operations", "peak_memory")  # of what is told, no parts of a step's time


def latents(count: int = 2048, spec: LatentSpec = F16D32) -> TensorLatents:
    """Of ten classes, each around a smooth picture of its own."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(10, spec.channels, 4, 4, generator=rng)
    means = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic").flatten(2).mT
    y = torch.arange(count) % 10
    noise = torch.randn(count, spec.num_tokens, spec.channels, generator=rng)
    return TensorLatents(means[y] + 0.5 * noise, y, latent=spec, num_classes=1000)


class Images:
    """As many images of 256 px as there are latents, all of them alike."""

    def __init__(self, count: int):
        self.count = count
        self.image = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.image, 0


def timed(
    words: list[str], folder: Path, *, steps: int, latents_of: Callable[[], TensorLatents] = latents
) -> tuple[Mapping[str, float], GeneratorModule]:
    """What `StepTimes` tells of some steps of a training, and its end."""
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    cfg = ldbench.compose("train", ["trainer.accelerator=cuda", *RESIDENT, *words])
    z = latents_of()
    planned = plan_generator(step_timing.shortened(cfg, steps, str(folder), ()), z, images=Images(len(z)))
    task = generator_training.fit_generator(planned, None)
    (told,) = step_timing.read(planned.run_folder).values()
    return told, task


def show(name: str, told: Mapping[str, float], rate: float) -> None:
    """A line: the time of a step, images a second, memory, the share of the chip's rate, and the parts of the time."""
    used = told["operations"] / told["seconds"] / rate
    parts = ", ".join(f"{part} {1000 * value:.1f}" for part, value in told.items() if part not in OTHERWISE)
    speed = f"{1000 * told['seconds']:7.1f} ms {told['images'] / told['seconds']:7.0f} images/s "
    speed += f"{told['peak_memory'] / 2**30:6.1f} GiB"
    print(f"  {name:34s} {speed} {100 * used:5.1f} %   ({parts})", flush=True)
    assert 0 < used < 1


@cache
def rates() -> dict[str, float]:
    """The rate of products of matrices, by precision."""
    found = {name: matrix_rate(CUDA, name) for name in ("fp32", "tf32", "bf16")}
    told = ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in found.items())
    print(f"\n{torch.cuda.get_device_name()}, products of matrices of 8192: {told}", flush=True)
    return found


@pytest.mark.parametrize("name", ["bf16, compiled", "bf16, compiled, not deterministic", "bf16"])
def test_lightningdit_xl_1_trains_and_is_sampled(name: str, tmp_path: Path) -> None:
    rate = rates()["bf16"]
    began = time.perf_counter()
    told, task = timed(["generator=lightningdit_xl_1", "generator.batch_size=128", *SETTINGS[name]], tmp_path, steps=12)
    print(f"LightningDiT-XL/1, 128 latents of f16d32; built and timed in {time.perf_counter() - began:.0f} s")
    show(name, told, rate)
    words = ["generator=lightningdit_xl_1", "sampler.num_steps=20"]
    cfg, generator, num = ldbench.compose("train", words), task.generator.eval().to(CUDA), 64
    noise, y = torch.randn(num, 256, 32, device=CUDA), torch.arange(num, device=CUDA)
    sampler, guidance = build_sampler(cfg), build_guidance(cfg, generator, ())
    with compute_precision("bf16", "cuda"):
        draw = lambda: generator.sample(noise, y, sampler, guidance, stream=NoiseStream(0, range(num)))  # noqa: E731
        speed = images_per_second(draw, num, repeats=1, device=CUDA).value
    print(f"  sampling, 20 guided steps: {speed:.1f} images/s, so {speed * 20 / 250:.2f} of 250 steps", flush=True)


def test_what_settings_do_for_a_step_of_lightningdit_b_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = rates()
    print("LightningDiT-B/1, 128 latents of f16d32")
    for name, words in SETTINGS.items():
        with monkeypatch.context() as patched:
            if "not fused" in name:
                patched.setattr(
                    GeneratorModule, "build_optimizer", lambda task, parameters: task.stage.optimizer.build(parameters)
                )
            told, _ = timed(
                ["generator=lightningdit_b_1", "generator.batch_size=128", *words], tmp_path / name, steps=15
            )
        show(name, told, rate[name.partition(",")[0]])


@pytest.mark.parametrize("name", ["bf16, compiled", "bf16, compiled, not deterministic"])
def test_ditdh_xl_trains_and_is_sampled_on_latents_of_rae(name: str, tmp_path: Path) -> None:
    rate = rates()["bf16"]
    words = ["generator=ditdh_xl_1", "generator.batch_size=64"]
    told, task = timed([*words, *SETTINGS[name]], tmp_path, steps=12, latents_of=partial(latents, 512, RAE))
    print("DiT^DH-XL, 64 latents of 256 x 768")
    show(name, told, rate)
    cfg, generator, num = ldbench.compose("train", [*words, "sampler.num_steps=10"]), task.generator.eval(), 32
    noise, y = torch.randn(num, 256, 768, device=CUDA), torch.arange(num, device=CUDA)
    generator, sampler, guidance = generator.to(CUDA), build_sampler(cfg), build_guidance(cfg, generator, ())
    with compute_precision("bf16", "cuda"):
        draw = lambda: generator.sample(noise, y, sampler, guidance)  # noqa: E731
        speed = images_per_second(draw, num, repeats=1, device=CUDA).value
    print(f"  sampling, 10 steps: {speed:.1f} images/s, so {speed * 10 / 50:.1f} of 50 steps", flush=True)


def test_what_representation_alignment_costs_a_step(tmp_path: Path) -> None:
    rate = rates()["bf16"]
    weights = tmp_path / "dinov2_b.pt"  # untrained ones of the true architecture
    torch.save(timm.create_model(DINOV2_B, pretrained=False, num_classes=0).state_dict(), weights)
    repa = ["+generator_loss@generator.losses.repa=repa", "teacher@generator.losses.repa.teacher=dinov2"]
    repa += [
        f"generator.losses.repa.teacher.{key}" for key in (f"architecture={DINOV2_B}", f"weights.source={weights}")
    ]
    repa += ["generator.losses.repa.projector_width=2048", "data=shapes", "data.image_size=256"]
    print("LightningDiT-B/1, 128 latents of f16d32")
    for name, words in {
        "without alignment": [],
        "REPA, after block 4": [*repa, "generator.losses.repa.block=4"],
    }.items():
        settings = ["generator=lightningdit_b_1", "generator.batch_size=128", *COMPILED, *words]
        told, _ = timed(settings, tmp_path / name, steps=15)
        show(name, told, rate)


@pytest.mark.parametrize("name", ["meanflow", "sit"])
def test_a_step_of_meanflow_beside_one_of_flow_matching(name: str, tmp_path: Path) -> None:
    rate = rates()["bf16"]
    told, _ = timed([f"generator={name}", "size=dit_b_1", "generator.batch_size=128", *BF16], tmp_path, steps=15)
    show(f"SiT-B/1 by {name}", told, rate)


def test_precisions_learn_alike(tmp_path: Path) -> None:
    curves: dict[str, list[float]] = {}
    for name, words in {"fp32": [], "bf16": BF16, "bf16, compiled": COMPILED}.items():
        torch._dynamo.reset()
        said = [
            "generator=lightningdit_b_1",
            "generator.batch_size=32",
            "generator.max_steps=100",
            "trainer.log_every=1",
            *words,
            *RESIDENT,
        ]
        cfg = ldbench.compose("train", [*said, "trainer.accelerator=cuda"])
        cfg.paths.runs, cfg.callbacks = str(tmp_path / name), {}
        planned = plan_generator(cfg, latents())
        generator_training.fit_generator(planned, None)
        curves[name] = list(
            read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))["train/loss"].values()
        )
    print("\nmean loss of ten steps of 32, LightningDiT-B/1, the same batches, times and noise: " + ", ".join(curves))
    for first in range(0, 100, 10):
        told = "  ".join(f"{sum(curve[first : first + 10]) / 10:8.4f}" for curve in curves.values())
        print(f"  {first + 1:3d} to {first + 10:3d}  {told}", flush=True)
    whole = torch.tensor(curves["fp32"])
    for name, curve in curves.items():
        assert (torch.tensor(curve) / whole - 1).abs().mean() < 0.02, name


@pytest.mark.parametrize("name", ["maetok_b_128", "vavae_f16d32"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_tokenizer_of_256_px_trains_encodes_and_decodes(name: str, compiled: bool, tmp_path: Path) -> None:
    rate = matrix_rate(CUDA, "bf16")
    words = [
        f"tokenizer={name}",
        f"trainer.compile={compiled}",
        "data=shapes",
        "data.num_train=256",
        "data.num_test=8",
        "trainer.accelerator=cuda",
        "trainer.workers=8",
        *BF16,
    ]
    cfg = ldbench.compose("train", [*words, f"paths.root={tmp_path}"])
    tokenizer = instantiate(cfg.tokenizer.model, image_size=256).eval().to(CUDA)
    images = torch.rand(32, 3, 256, 256, device=CUDA) * 2 - 1
    with compute_precision("bf16", "cuda"), torch.no_grad():
        z = encode(tokenizer, images)
        calls = partial(encode, tokenizer, images), partial(decode, tokenizer, z)
        speeds = [images_per_second(call, 32, repeats=5, device=CUDA).value for call in calls]
    print(f"\n{name}, 32 images of 256 px, bf16: encodes {speeds[0]:.0f} a second, decodes {speeds[1]:.0f}", flush=True)
    for stage, told in step_timing.time_tokenizer_steps(cfg, 6, 32).items():
        show(f"a step of {stage}", told, rate)


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
    x = centres[torch.randint(num, (count,), generator=rng, device="cuda")] + 0.7 * torch.randn(
        count, dim, generator=rng, device="cuda"
    )
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    means = x[torch.randperm(count, generator=rng, device="cuda")[:num]].double().cpu()
    ones = torch.ones_like(means) if kind == "diagonal" else torch.eye(dim, dtype=torch.float64).repeat(num, 1, 1)
    weights = torch.full((1, num), 1 / num, dtype=torch.float64)
    start = Mixture(kind, weights, means[None], ones[None])  # type: ignore[arg-type]
    points = PointsInMemory(x)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = timed_em(lambda steps: fit(points, start, floor=1e-6, max_iter=steps, tolerance=0.0), 5)
    added = (torch.cuda.max_memory_allocated() - before) / 2**20
    print(
        f"\nEM, {kind}, {count:,} x {dim}, K = {num}: {1000 * seconds:.1f} ms an iteration, {added:.0f} MiB beside the "
        "points",
        flush=True,
    )
    assert seconds > 0
