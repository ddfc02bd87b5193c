"""Job `throughput`: what a tokenizer costs, and where a generator is chosen, what the generator costs."""

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

SPLIT = {  # phases of a training step by the beginning or the end of their names in it -> what they are summed under
    "forward": ("tokenizer forward", "generator forward"),
    "losses": ("term ",),
    "balancing": ("gradient of ", "reconstruction at the anchor", " at its anchor"),
    "backward": ("tokenizer backward", "generator backward"),
    "discriminators": ("discriminator",),
    "optimizers": ("optimizer",),
}

# (steps, images in a batch, or None: the recipe's) -> stage -> phase -> seconds; nothing for what is not trained here
StepTimer = Callable[[int, int | None], Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Drawing:
    """A generator, and how it is sampled."""

    generator: Generator
    sampler: Sampler
    guidance: Guidance


class Throughput:
    """Counts parameters, floating-point operations and latents, and times encoding, decoding, the backbone, sampling and a training step.

    Operations are those of one image (of the backbone: one call), two for each multiplication and addition, with attention; they and the
    parameters are exact. Times and memory are of this machine, in the trainer's precision, compiled where it compiles; the protocol names all three.
    `utilisation` is the share of `matrix_flops_per_second`, measured beside it, that a part's operations take (model FLOPs utilisation [0]).

    [0] Chowdhery et al., PaLM, 2022, https://arxiv.org/abs/2204.02311, appendix B; there of the rate that a maker promises
    """

    name: ClassVar[str] = "throughput"
    revision: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    accepts: ClassVar[frozenset[str]] = frozenset({"generator"})
    settings: ClassVar[tuple[str, ...]] = ("images", "repeats", "steps", "batch_size")

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        drawing: Drawing | None,  # None where no generator is chosen
        step_times: StepTimer,
        machine: str,  # what the times are of; it stands in the protocol
        precision: Precision,
        compiled: bool,  # whether encoding, decoding and the backbone are
        images: int,
        repeats: int,
        steps: int,
        batch_size: int | None,  # images of a training step; None: as many as the recipe says
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
        for key, least in (("images", 1), ("repeats", 1), ("steps", 0)):
            if not isinstance(settings[key], int) or settings[key] < least:
                raise ValueError(f"job.{key} must be a whole number of at least {least}, got {settings[key]!r}.")
        if settings["batch_size"] is not None and not (
            isinstance(settings["batch_size"], int) and settings["batch_size"] >= 1
        ):
            raise ValueError(
                f"job.batch_size must be a whole number of at least 1, or null for the recipe's, got {settings['batch_size']!r}."
            )

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in the folder of figures without which a known measurement is made again."""
        return ()

    def run(self, out: Path) -> dict[str, Estimate]:
        """The costs of the tokenizer, or with a generator those of the generator alone."""
        found = self.of_tokenizer() if self.drawing is None else self.of_generator(self.drawing)
        for stage, times in (self.step_times(self.steps, self.batch_size) if self.steps else {}).items():
            found |= of_step(stage, times)
        return found | used(found, matrix_rate(self.device, self.precision))

    def of_tokenizer(self) -> dict[str, Estimate]:
        """Encoding and decoding, each alone."""
        tokenizer, spec, size = self.tokenizer.eval(), self.tokenizer.latent, self.tokenizer.image_size
        images, z = (3, size, size), (spec.num_tokens, spec.channels)
        counted = {
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
        draw = torch.Generator().manual_seed(0)
        parts = {
            "encoder": (encode, (torch.rand(self.num_images, *images, generator=draw) * 2 - 1).to(self.device)),
            "decoder": (decode, torch.randn(self.num_images, *z, generator=draw).to(self.device)),
        }
        timed = self.timed(tokenizer, parts)
        tokenizer.cpu()  # its training is measured alone
        return {name: Estimate(float(value)) for name, value in counted.items()} | timed

    def of_generator(self, drawing: Drawing) -> dict[str, Estimate]:
        """The backbone's call, and sampling: from noise to latents, which the tokenizer has yet to decode."""
        generator, spec = drawing.generator.eval(), drawing.generator.backbone.latent
        backbone, z, y = generator.backbone, (spec.num_tokens, spec.channels), torch.zeros(1, dtype=torch.long)
        counted = {
            "params/backbone": parameters(backbone),
            "flops/backbone": flops(backbone, predict, (1, *z), (1,), y),
        }
        generator.to(self.device)
        noise = torch.randn(self.num_images, *z, generator=torch.Generator().manual_seed(0)).to(self.device)
        labels, calls = y.expand(self.num_images).to(self.device), Calls(backbone)

        def sample(num: int = self.num_images) -> Tensor:
            return generator.sample(
                noise[:num], labels[:num], drawing.sampler, drawing.guidance, stream=NoiseStream(0, range(num))
            )

        with calls, torch.no_grad():
            sample(1)
        counted["calls_per_sample"] = calls.items  # a guided call is two
        counted["flops/sample"] = counted["flops/backbone"] * counted["calls_per_sample"]
        if self.compiled:
            backbone.compile()
        timed = self.timed(
            backbone, {"backbone": (predict, noise, torch.full((self.num_images,), 0.5, device=self.device), labels)}
        )
        with compute_precision(self.precision, self.device.type):
            sampled = images_per_second(sample, self.num_images, repeats=1, device=self.device)
        generator.cpu()  # its training is measured alone
        return (
            {name: Estimate(float(value)) for name, value in counted.items()}
            | timed
            | {"images_per_second/sample": sampled}
        )

    def timed(self, module: nn.Module, parts: Mapping[str, tuple[Any, ...]]) -> dict[str, Estimate]:
        """Images a second, and the peak of memory, of each call."""
        found = {}
        for part, (plain, *inputs) in parts.items():
            call: Call = (
                torch.compile(plain) if self.compiled and not isinstance(module, Backbone) else plain
            )  # a backbone compiles itself
            run = lambda call=call, inputs=inputs: call(module, *inputs)  # noqa: E731
            with compute_precision(self.precision, self.device.type):
                found[f"images_per_second/{part}"] = images_per_second(
                    run, self.num_images, repeats=self.repeats, device=self.device
                )
                found[f"peak_memory/{part}"] = Estimate(float(peak_memory(module, call, *inputs, device=self.device)))
        return found


class Calls:
    """Counts the images that a backbone is called for while it is entered."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.items = 0

    def __enter__(self) -> "Calls":
        self.hook = self.backbone.register_forward_pre_hook(self.count)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def count(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.items += len(inputs[0])


def of_step(stage: str, times: Mapping[str, float]) -> dict[str, Estimate]:
    """The operations of one training step for each image, its seconds, and those of what it is made of; on CUDA its peak of memory."""
    found = {f"flops/{stage}": times["operations"] / times["images"]} if times.get("operations") else {}
    found |= {f"step_seconds/{stage}": times["seconds"], f"step_seconds/{stage}/waiting": times["waiting"]}
    for part, names in SPLIT.items():
        phases = [seconds for name, seconds in times.items() if name.startswith(names) or name.endswith(names)]
        found |= {f"step_seconds/{stage}/{part}": sum(phases)} if phases else {}
    found[f"images_per_second/{stage}"] = times["images"] / times["seconds"]
    if "peak_memory" in times:
        found[f"peak_memory/{stage}"] = times["peak_memory"]
    return {name: Estimate(value) for name, value in found.items()}


def used(found: Mapping[str, Estimate], rate: float) -> dict[str, Estimate]:
    """The rate of a device's matrix products, and the share of it that each part takes of which operations and images a second are known."""
    rates = {part: speed for name, speed in found.items() if (part := name.removeprefix("images_per_second/")) != name}
    shares = {
        f"utilisation/{part}": speed.times(found[f"flops/{part}"].value / rate)
        for part, speed in rates.items()
        if f"flops/{part}" in found
    }
    return {"matrix_flops_per_second": Estimate(rate), **shares}


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns or could learn; tables that are computed are none."""
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
