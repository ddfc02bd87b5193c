"""Costs: operations and parameters agree with counts by hand and with the papers; calls and phases add up."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ldbench
from ldbench.config.components import instantiate
from ldbench.core.latent import LatentSpec
from ldbench.jobs import _benchmark
from ldbench.jobs._benchmark import flops, images_per_second, peak_memory
from ldbench.jobs.throughput import GeneratorSampling, Throughput, decode, encode, parameters, predict, step_metrics
from ldbench.pipeline.generator_plan import build_generator
from ldbench.pipeline.job_context import describe_machine

CPU = torch.device("cpu")
TINY = ["generator.backbone.width=32", "generator.backbone.depth=2", "generator.backbone.num_heads=2"]


class Attends(nn.Module):
    """A projection, attention of two heads, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.mix = nn.Linear(8, 24), nn.Conv1d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, 8) -> (B, 4, N)
        q, k, v = self.project(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.mix(mixed.transpose(1, 2))


def test_operations_are_those_of_a_count_by_hand() -> None:
    tokens = 10
    by_hand = 2 * tokens * 8 * 24 + 2 * (2 * 2 * tokens * tokens * 4) + 2 * tokens * 4 * 8 * 3
    assert flops(Attends(), lambda module, x: module(x), (1, tokens, 8)) == by_hand
    assert flops(Attends(), lambda module, x: module(x), (5, tokens, 8)) == 5 * by_hand
    assert parameters(Attends()) == 8 * 24 + 24 + 4 * 8 * 3 + 4


def on_meta(tokenizer: str) -> Any:
    cfg = ldbench.compose("train", [f"tokenizer={tokenizer}"])
    with torch.device("meta"):
        return instantiate(cfg.tokenizer.model, image_size=cfg.tokenizer.image_size)


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"), [("vmae_f8d16", 20.62, 20.70), ("sd_vae_f8d4", 272.72, 622.19)]
)
def test_the_operations_of_released_tokenizers_match_a_count_of_theirs(
    name: str, encoder: float, decoder: float
) -> None:
    tokenizer = on_meta(name)
    spec, size = tokenizer.latent, tokenizer.image_size
    found = flops(tokenizer, encode, (1, 3, size, size)), flops(tokenizer, decode, (1, spec.num_tokens, spec.channels))
    assert [round(value / 1e9, 2) for value in found] == [encoder, decoder]


GENERATORS = [
    ("dit_xl_2", LatentSpec(1024, 4, (32, 32)), 2 * 118.64),
    ("lightningdit_b_1", LatentSpec(1024, 16, (32, 32)), 212.74),
]


@pytest.mark.parametrize(("name", "latent", "expected"), GENERATORS, ids=[name for name, *_ in GENERATORS])
def test_the_operations_of_backbones_are_those_of_the_papers(name: str, latent: LatentSpec, expected: float) -> None:
    """DiT's paper counts a multiplication with its addition as one."""
    cfg = ldbench.compose("train", [f"generator={name}"])
    backbone = build_generator(cfg, latent, 1000, device="meta").backbone
    found = flops(backbone, predict, (1, latent.num_tokens, latent.channels), (1,), torch.zeros(1, dtype=torch.long))
    assert found / 1e9 == pytest.approx(expected, rel=1e-3)


def test_counting_leaves_the_module_alone() -> None:
    module = Attends()
    flops(module, lambda module, x: module(x), (1, 10, 8))
    assert module.project.weight.device == CPU


def test_the_peak_of_memory_includes_weights_inputs_and_intermediates() -> None:
    module, x = nn.Sequential(nn.Linear(100, 1000), nn.Linear(1000, 10)), torch.randn(50, 100)
    bytes_ = 4 * (100 * 1000 + 1000 + 1000 * 10 + 10 + 50 * 100 + 50 * 1000)
    found = peak_memory(module, lambda module, x: module(x), x, device=CPU)
    assert bytes_ <= found <= bytes_ + 4 * 50 * 10 + 10_000


def test_a_rate_comes_with_an_interval_of_its_repeats() -> None:
    rate = images_per_second(lambda: torch.randn(100, 100) @ torch.randn(100, 100), 7, repeats=20, device=CPU)
    assert rate.value > 0
    assert rate.low is None or rate.low < rate.value < rate.high
    assert images_per_second(lambda: None, 7, repeats=1, device=CPU).low is None


def drawing(guidance: str = "none", steps: int = 3, sampler: str = "euler") -> tuple[Any, GeneratorSampling]:
    cfg = ldbench.compose(
        "train", ["generator=sit", f"guidance={guidance}", f"sampler={sampler}", f"sampler.num_steps={steps}", *TINY]
    )
    tokenizer = instantiate(cfg.tokenizer.model, image_size=cfg.tokenizer.image_size)
    generator = build_generator(cfg, tokenizer.latent, 10)
    return tokenizer, GeneratorSampling(generator, instantiate(cfg.sampler), instantiate(cfg.guidance))


def job(tokenizer: Any, drawn: GeneratorSampling | None = None, **changes: Any) -> Throughput:
    times = {"train": {"seconds": 0.5, "waiting": 0.1, "tokenizer forward": 0.2, "images": 10, "operations": 4e9}}
    settings = {
        "step_times": lambda steps, batch_size: times,
        "machine": "a machine",
        "precision": "fp32",
        "compiled": False,
        "images": 4,
        "repeats": 2,
        "steps": 3,
        "batch_size": None,
        "device": CPU,
    }
    return Throughput(tokenizer=tokenizer, drawing=drawn, **{**settings, **changes})


def test_a_tokenizer_alone_is_counted_and_timed(tmp_path: Any) -> None:
    tokenizer, _ = drawing()
    found = job(tokenizer).run(tmp_path)
    spec = tokenizer.latent
    assert (
        found["params/tokenizer"].value
        == parameters(tokenizer)
        == found["params/encoder"].value + found["params/decoder"].value
    )
    assert (found["latent_tokens"].value, found["latent_channels"].value) == (spec.num_tokens, spec.channels)
    assert found["compression_ratio"].value == 3 * tokenizer.image_size**2 / (spec.num_tokens * spec.channels)
    assert all(found[f"images_per_second/{part}"].value > 0 for part in ("encoder", "decoder"))
    assert all(found[f"peak_memory/{part}"].value > 4 * parameters(tokenizer) for part in ("encoder", "decoder"))
    assert (found["step_seconds/train"].value, found["flops/train"].value) == (0.5, 4e8)
    rate = found["matrix_flops_per_second"].value
    assert found["utilisation/train"].value == pytest.approx(4e9 / 0.5 / rate)
    for part in ("encoder", "decoder"):
        used, speed = found[f"utilisation/{part}"], found[f"images_per_second/{part}"]
        assert used.value == pytest.approx(found[f"flops/{part}"].value * speed.value / rate)
        assert used.low is None or used.low < used.value < used.high
    assert not [name for name in found if "backbone" in name or "sample" in name]


def test_no_step_is_timed_for_zero_steps(tmp_path: Any) -> None:
    tokenizer, _ = drawing()
    calls: list[tuple[int, int | None]] = []
    found = job(tokenizer, steps=0, step_times=lambda *of: calls.append(of)).run(tmp_path)
    assert not calls
    assert not [name for name in found if name.startswith("step_seconds")]


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_parts_are_timed_as_they_are_trained(tmp_path: Any, compiled: bool) -> None:
    tokenizer, drawn = drawing()
    kinds: list[torch.dtype] = []
    drawn.generator.backbone.register_forward_hook(lambda _module, _inputs, output: kinds.append(output.dtype))
    for sampling in (None, drawn):
        found = job(tokenizer, sampling, precision="bf16", compiled=compiled).run(tmp_path)
        assert all(estimate.value > 0 for estimate in found.values())
    assert found["calls_per_sample"].value == 3
    assert torch.bfloat16 in kinds


def test_the_rate_of_matrix_products_counts_two_for_each_multiplication(monkeypatch: pytest.MonkeyPatch) -> None:
    # the first, which is not timed, is the fastest
    ends = iter([0.0, 0.001, 1.0, 1.5, 2.0, 2.25, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5])
    monkeypatch.setattr(_benchmark, "now", lambda _: next(ends))
    assert _benchmark.matrix_rate(CPU, "bf16", side=16) == 2 * 16**3 / 0.25


def test_the_machine_names_precision_and_compilation() -> None:
    plain, other = (
        ldbench.compose("run", overrides) for overrides in ([], ["trainer.precision=bf16", "trainer.compile=true"])
    )
    assert describe_machine(other).removeprefix(describe_machine(plain)) == ", bf16, compiled"


@pytest.mark.parametrize(
    ("guidance", "sampler", "calls"), [("none", "euler", 3), ("cfg", "euler", 6), ("none", "heun", 6)]
)
def test_a_sample_costs_its_calls_of_the_backbone(tmp_path: Any, guidance: str, sampler: str, calls: int) -> None:
    tokenizer, drawn = drawing(guidance, sampler=sampler)
    found = job(tokenizer, drawn).run(tmp_path)
    assert found["calls_per_sample"].value == calls
    assert found["flops/sample"].value == calls * found["flops/backbone"].value
    assert found["params/backbone"].value == parameters(drawn.generator.backbone)
    assert not [name for name in found if "encoder" in name]
    assert not drawn.generator.backbone._forward_pre_hooks


def test_the_phases_of_a_step_add_up() -> None:
    times = {
        **{
            "seconds": 1.0,
            "waiting": 0.05,
            "tokenizer forward": 0.2,
            "term pixels": 0.03,
            "term gan": 0.04,
            "gradient of gan by the image": 0.01,
        },
        **{
            "reconstruction at the anchor of gan": 0.02,
            "gan at its anchor": 0.005,
            "tokenizer backward": 0.3,
            "discriminator of gan": 0.1,
        },
        **{"discriminators backward": 0.15, "optimizers": 0.06, "images": 8, "peak_memory": 3e9},
    }
    found = {name: estimate.value for name, estimate in step_metrics("train", times).items()}
    parts = {
        "waiting": 0.05,
        "forward": 0.2,
        "losses": 0.07,
        "balancing": 0.035,
        "backward": 0.3,
        "discriminators": 0.25,
        "optimizers": 0.06,
    }
    assert {part: pytest.approx(found[f"step_seconds/train/{part}"]) for part in parts} == parts
    assert (found["images_per_second/train"], found["peak_memory/train"]) == (8.0, 3e9)


@pytest.mark.parametrize(("key", "value"), [("images", 0), ("repeats", 1.5), ("steps", -1), ("batch_size", 0)])
def test_settings_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"job.{key} must be a whole number of at least"):
        Throughput.check({"images": 1, "repeats": 1, "steps": 0, "batch_size": None, key: value})
