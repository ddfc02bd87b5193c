"""Job `throughput`: the computational cost of a tokenizer, or of a generator if one is chosen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldbench.core.backbone import Backbone
from ldbench.core.estimate import Estimate
from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance, Sampler
from ldbench.core.tokenizer import Tokenizer
from ldbench.jobs._benchmark import Call, flops, images_per_second, matrix_rate, peak_memory
from ldbench.runtime.device import Precision, compute_precision
from ldbench.sampling.noise import NoiseStream

PHASES = {  # part of a training step -> how the names of its phases begin or end
    "forward": ("tokenizer forward", "generator forward"),
    "losses": ("term ",),
    "balancing": ("gradient of ", "reconstruction at the anchor", " at its anchor"),
    "backward": ("tokenizer backward", "generator backward"),
    "discriminators": ("discriminator",),
    "optimizers": ("optimizer",),
}

# (steps, batch size, or None: the recipe's) -> stage -> phase -> seconds; empty for what is not trained here
StepTimer = Callable[[int, int | None], Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class GeneratorSampling:
    """A generator with its sampler and guidance."""

    generator: Generator
    sampler: Sampler
    guidance: Guidance


class Throughput:
    """Counts parameters, floating-point operations and latents, and times encoding, decoding, the backbone, sampling
    and a training step.

    Operations are for one image (of the backbone: one call), a multiply-add counts as two, attention included; they and
    the parameters are exact. Times and memory are of this machine, in the trainer's precision, compiled if it compiles;
    the protocol records all three. `utilisation` is a part's rate of operations as a share of
    `matrix_flops_per_second`, measured in the same run (model FLOPs utilization [0]).

    [0] Chowdhery et al., PaLM, 2022, https://arxiv.org/abs/2204.02311, appendix B (there as a share of the vendor's
        peak rate)
    """

    name: ClassVar[str] = "throughput"
    revision: ClassVar[int] = 3
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    accepts: ClassVar[frozenset[str]] = frozenset({"generator"})
    settings: ClassVar[tuple[str, ...]] = ("images", "repeats", "steps", "batch_size")

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        drawing: GeneratorSampling | None,  # None where no generator is chosen
        step_times: StepTimer,
        machine: str,  # that the times are of; part of the protocol
        precision: Precision,
        compiled: bool,  # whether encoding, decoding and the backbone are compiled
        images: int,
        repeats: int,
        steps: int,
        batch_size: int | None,  # of a training step; None: the recipe's
        device: torch.device,
    ):
        self.tokenizer = tokenizer
        self.drawing = drawing
        self.step_times = step_times
        self.machine = machine
        self.precision = precision
        self.compiled = compiled
        self.num_images = images
        self.repeats = repeats
        self.steps = steps
        self.batch_size = batch_size
        self.device = device

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range."""
        for key, minimum in (("images", 1), ("repeats", 1), ("steps", 0)):
            if not isinstance(settings[key], int) or settings[key] < minimum:
                raise ValueError(f"job.{key} must be a whole number of at least {minimum}, got {settings[key]!r}.")
        if settings["batch_size"] is not None and not (
            isinstance(settings["batch_size"], int) and settings["batch_size"] >= 1
        ):
            raise ValueError(
                "job.batch_size must be a whole number of at least 1, or null for the recipe's, got "
                f"{settings['batch_size']!r}."
            )

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the output folder without which a recorded measurement is repeated."""
        return ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """The costs of the tokenizer, or with a generator those of the generator alone."""
        metrics = self.measure_tokenizer() if self.drawing is None else self.measure_generator(self.drawing)
        for stage, times in (self.step_times(self.steps, self.batch_size) if self.steps else {}).items():
            metrics |= step_metrics(stage, times)
        return metrics | utilization(metrics, matrix_rate(self.device, self.precision))

    def measure_tokenizer(self) -> dict[str, Estimate]:
        """Costs of encoding and of decoding."""
        tokenizer, spec, size = self.tokenizer.eval(), self.tokenizer.latent, self.tokenizer.image_size
        images, z = (3, size, size), (spec.num_tokens, spec.channels)
        counts = {
            "params/encoder": parameters(tokenizer.encoder),
            "params/decoder": parameters(tokenizer.decoder),
            "params/tokenizer": parameters(tokenizer),
            "flops/encoder": flops(tokenizer, encode, (1, *images)),
            "flops/decoder": flops(tokenizer, decode, (1, *z)),
            "latent_tokens": spec.num_tokens,
            "latent_channels": spec.channels,
            "compression_ratio": prod(images) / prod(z),
        }
        tokenizer.to(self.device)
        rng = torch.Generator().manual_seed(0)
        parts = {
            "encoder": (encode, (torch.rand(self.num_images, *images, generator=rng) * 2 - 1).to(self.device)),
            "decoder": (decode, torch.randn(self.num_images, *z, generator=rng).to(self.device)),
        }
        timings = self.measure_calls(tokenizer, parts)
        tokenizer.cpu()  # makes room for measuring its training
        return {name: Estimate(float(value)) for name, value in counts.items()} | timings

    def measure_generator(self, drawing: GeneratorSampling) -> dict[str, Estimate]:
        """Costs of a call of the backbone, and of sampling latents, without decoding them."""
        generator, spec = drawing.generator.eval(), drawing.generator.backbone.latent
        backbone, z, y = generator.backbone, (spec.num_tokens, spec.channels), torch.zeros(1, dtype=torch.long)
        counts = {
            "params/backbone": parameters(backbone),
            "flops/backbone": flops(backbone, predict, (1, *z), (1,), y),
        }
        generator.to(self.device)
        noise = torch.randn(self.num_images, *z, generator=torch.Generator().manual_seed(0)).to(self.device)
        labels, calls = y.expand(self.num_images).to(self.device), CallCounter(backbone)

        def sample(num: int = self.num_images) -> Tensor:
            return generator.sample(
                noise[:num], labels[:num], drawing.sampler, drawing.guidance, stream=NoiseStream(0, range(num))
            )

        with calls, torch.no_grad():
            sample(1)
        counts["calls_per_sample"] = calls.items  # a call with classifier-free guidance counts twice
        counts["flops/sample"] = counts["flops/backbone"] * counts["calls_per_sample"]
        if self.compiled:
            backbone.compile()
        timings = self.measure_calls(
            backbone, {"backbone": (predict, noise, torch.full((self.num_images,), 0.5, device=self.device), labels)}
        )
        with compute_precision(self.precision, self.device.type):
            sampled = images_per_second(sample, self.num_images, repeats=1, device=self.device)
        generator.cpu()  # makes room for measuring its training
        return (
            {name: Estimate(float(value)) for name, value in counts.items()}
            | timings
            | {"images_per_second/sample": sampled}
        )

    def measure_calls(self, module: nn.Module, parts: Mapping[str, tuple[Any, ...]]) -> dict[str, Estimate]:
        """Images per second and peak memory of each call."""
        metrics = {}
        for part, (function, *inputs) in parts.items():
            # a backbone is compiled already
            call: Call = torch.compile(function) if self.compiled and not isinstance(module, Backbone) else function
            run = lambda call=call, inputs=inputs: call(module, *inputs)  # noqa: E731
            with compute_precision(self.precision, self.device.type):
                metrics[f"images_per_second/{part}"] = images_per_second(
                    run, self.num_images, repeats=self.repeats, device=self.device
                )
                metrics[f"peak_memory/{part}"] = Estimate(float(peak_memory(module, call, *inputs, device=self.device)))
        return metrics


class CallCounter:
    """A context that counts the images that a backbone is called with."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.items = 0

    def __enter__(self) -> "CallCounter":
        self.hook = self.backbone.register_forward_pre_hook(self.count)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def count(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Adds the images of a call."""
        self.items += len(inputs[0])


def step_metrics(stage: str, times: Mapping[str, float]) -> dict[str, Estimate]:
    """Operations of a training step per image, its seconds and those of its parts; on CUDA its peak memory."""
    metrics = {f"flops/{stage}": times["operations"] / times["images"]} if times.get("operations") else {}
    metrics |= {f"step_seconds/{stage}": times["seconds"], f"step_seconds/{stage}/waiting": times["waiting"]}
    for part, names in PHASES.items():
        phases = [seconds for name, seconds in times.items() if name.startswith(names) or name.endswith(names)]
        metrics |= {f"step_seconds/{stage}/{part}": sum(phases)} if phases else {}
    metrics[f"images_per_second/{stage}"] = times["images"] / times["seconds"]
    if "peak_memory" in times:
        metrics[f"peak_memory/{stage}"] = times["peak_memory"]
    return {name: Estimate(value) for name, value in metrics.items()}


def utilization(metrics: Mapping[str, Estimate], rate: float) -> dict[str, Estimate]:
    """The device's rate of matrix products, and each part's share of it, where operations and images per second are
    known.
    """
    rates = {
        part: speed for name, speed in metrics.items() if (part := name.removeprefix("images_per_second/")) != name
    }
    shares = {
        f"utilisation/{part}": speed.times(metrics[f"flops/{part}"].value / rate)
        for part, speed in rates.items()
        if f"flops/{part}" in metrics
    }
    return {"matrix_flops_per_second": Estimate(rate), **shares}


def parameters(module: nn.Module) -> int:
    """The number of parameters of a module, trainable or frozen; computed tables are buffers and do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def encode(tokenizer: Tokenizer, images: Tensor) -> Tensor:
    """The latents of images."""
    return tokenizer.encode(images).mean


def decode(tokenizer: Tokenizer, z: Tensor) -> Tensor:
    """The images of latents."""
    return tokenizer.decode(z)


def predict(backbone: Backbone, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """One call of a backbone."""
    return backbone(x, t, y)
