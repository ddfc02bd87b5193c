"""JobContext: what a job may ask for, and which of a protocol's fields its numbers then depend on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import ConcatDataset

from ldbench.config.components import required_parameters
from ldbench.config.compose import Registry
from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance, ImageData, ImageSet, Sampler
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.store import LatentStore
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.jobs.throughput import GeneratorSampling, StepTimer
from ldbench.metrics.feature_set import Features, SetMetric, gather
from ldbench.pipeline.components import digest_of, make, make_extractor, make_teacher
from ldbench.pipeline.generator_plan import make_guidance, make_sampler
from ldbench.pipeline.get_generator import build_encoder, is_trained
from ldbench.pipeline.trained_model import TrainedModel
from ldbench.results.protocol import Protocol
from ldbench.runtime.device import Precision, device_name, find_device


@dataclass(frozen=True)
class EvaluationTarget:
    """What a measurement is of: images, and mostly a tokenizer, or a generator of its latents."""

    data: ImageData
    tokenizer: TrainedModel | None = None
    generator: TrainedModel | None = None

    @property
    def artifacts(self) -> dict[str, TrainedModel]:
        """By role."""
        return {role: found for role in ("tokenizer", "generator") if (found := getattr(self, role)) is not None}

    @property
    def name(self) -> str:
        """Of the last thing built, or of the images."""
        return list(self.artifacts.values())[-1].name if self.artifacts else self.data.name

    def restricted_to_job(self, node: DictConfig) -> "EvaluationTarget":
        """Of these, what a job asks for: a generator counts for no measurement of its tokenizer."""
        tokenizer, generator = needs_tokenizer(node), takes_generator(node)
        return EvaluationTarget(self.data, self.tokenizer if tokenizer else None, self.generator if generator else None)


class JobContext:
    """The inputs that a job may ask for: keywords of its constructor that its yaml does not set.

    Each is built when a job asks for it.
    """

    def __init__(self, cfg: DictConfig, measured: EvaluationTarget, protocol: Protocol, registry: Registry):
        self._cfg = cfg
        self._measured = measured
        self._protocol = protocol
        self._registry = registry

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer.load_tokenizer()

    def tokenizer_name(self) -> str:
        """Of its artifact's folder."""
        return self._tokenizer.name

    def tokenizer_digest(self) -> str:
        return self._tokenizer.digest

    def generator(self) -> Generator:
        return self._model

    def sampler(self) -> Sampler:
        return make_sampler(self._cfg)

    def guidance(self) -> Guidance:
        return make_guidance(self._cfg, self._model, self._registry)

    def drawing(self) -> GeneratorSampling | None:
        """The generator and how it is sampled; None where no generator is chosen."""
        return (
            None
            if self._measured.generator is None
            else GeneratorSampling(self._model, self.sampler(), self.guidance())
        )

    def step_times(self) -> StepTimer:
        """Times some training steps of the generator, or of the tokenizer where no generator is chosen.

        Returns nothing for a model that is not trained here.
        """
        return self._step_times

    def machine(self) -> str:
        return machine_of(self._cfg)

    def precision(self) -> Precision:
        return self._cfg.trainer.precision

    def compiled(self) -> bool:
        return self._cfg.trainer.compile

    def sampling_seed(self) -> int:
        return self._cfg.seed

    def data(self) -> ImageData:
        return self._measured.data

    def train_latents(self) -> LatentStore:
        """Of the training images; encoded where they are not there."""
        return build_encoder(self._cfg, self._tokenizer, self._measured.data).store("train")

    def heldout_latents(self) -> LatentStore:
        return build_encoder(self._cfg, self._tokenizer, self._measured.data).store("test")

    def images(self) -> ImageSet:
        splits = splits_of(self._measured.data, self._protocol)
        return splits[0] if len(splits) == 1 else ConcatDataset(splits)

    def names(self) -> Sequence[str]:
        """A name for each of `images`: its file's where it has one, else its place."""
        splits = splits_of(self._measured.data, self._protocol)
        named, count = [name for part in splits for name in getattr(part, "names", ())], sum(map(len, splits))
        return named if len(named) == count else [f"{place:06d}" for place in range(count)]

    def metrics(self) -> dict[str, Any]:
        return {name: make("metric", name, self._protocol, self._registry) for name in self._protocol.reconstruction}

    def sets(self) -> SetEvaluator | None:
        """The metrics on sets of images, with their extractor; None where the protocol measures none."""
        name = self._protocol.extractor
        if name is None:
            return None
        return SetEvaluator(
            label=name,
            extractor=make_extractor(name, self._cfg, self._protocol, self._registry),
            digest=digest_of("extractor", name, self._protocol, self._registry),
            metrics={
                key: make("distribution", key, self._protocol, self._registry) for key in self._protocol.distribution
            },
            kept=self._protocol.kept,
            folder=Path(self._cfg.paths.artifacts) / "features",
            workers=self.workers(),
            device=self.device(),
        )

    def extractors(self) -> dict[str, Any]:
        """By name; none where the protocol measures no sets."""
        name = self._protocol.extractor
        return {} if name is None else {name: make_extractor(name, self._cfg, self._protocol, self._registry)}

    def distances(self) -> dict[str, Any]:
        """Of the features of two sets of images: those of the protocol's metrics that need no more."""
        made = {
            name: make("distribution", name, self._protocol, self._registry) for name in self._protocol.distribution
        }
        return {
            name: partial(apart, metric)
            for name, metric in made.items()
            if metric.is_distance and metric.requires <= {"normal", "features"}
        }

    def split(self) -> str:
        return self._protocol.split

    def pixel_rule(self) -> str:
        return self._protocol.pixel_rule

    def latent(self) -> str:
        return self._protocol.latent

    def seed(self) -> int:
        return self._protocol.seed

    def num_samples(self) -> int:
        return self._protocol.num_samples

    def labels(self) -> str | Sequence[int]:
        return self._protocol.labels

    def reference(self) -> str:
        return self._protocol.reference

    def latents(self) -> Path:
        """The folder of all latent stores."""
        return Path(self._cfg.paths.artifacts) / "latents"

    def teachers(self) -> Callable[[str], Any]:
        """Builds a teacher by its name in the config group; a feature network that it uses is trained on first use."""
        return lambda name: make_teacher(name, self._cfg, self._registry)

    def workers(self) -> int:
        return self._cfg.trainer.workers

    def device(self) -> torch.device:
        return find_device(self._cfg.trainer.accelerator)

    def _step_times(self, steps: int, batch_size: int | None) -> Mapping[str, Mapping[str, float]]:
        kind = "tokenizer" if self._measured.generator is None else "generator"
        if not is_trained(self._cfg, kind):
            return {}
        from ldbench.pipeline import step_timing  # Lightning takes seconds to load

        if kind == "tokenizer":
            return step_timing.of_tokenizer(self._cfg, steps, batch_size, registry=self._registry)
        return step_timing.of_generator(
            self._cfg, self._tokenizer, self._measured.data, steps, batch_size, registry=self._registry
        )

    @property
    def _tokenizer(self) -> TrainedModel:
        assert self._measured.tokenizer is not None, "a job that asks for a tokenizer is not run without one"
        return self._measured.tokenizer

    @cached_property
    def _model(self) -> Generator:
        assert self._measured.generator is not None, "a job that asks for a generator is not run without one"
        return self._measured.generator.load_generator()


JOB_INPUTS = frozenset(name for name in vars(JobContext) if not name.startswith("_"))
PROTOCOL_FIELDS = {  # what a job asks for -> the protocol's fields that its numbers then depend on
    "images": {"split"},
    "names": {"split"},
    "metrics": {"reconstruction"},
    "sets": {"extractor", "distribution", "kept"},
    "extractors": {"extractor"},
    "distances": {"distribution"},
    **{field: {field} for field in ("split", "pixel_rule", "latent", "seed", "num_samples", "labels", "reference")},
}
GENERATOR_INPUTS = frozenset(
    {"generator", "sampler", "guidance", "sampling_seed"}
)  # facts that there are only with a generator
TOKENIZER_INPUTS = GENERATOR_INPUTS | {
    "tokenizer",
    "tokenizer_name",
    "tokenizer_digest",
    "train_latents",
    "heldout_latents",
}  # and with a tokenizer

RECORD_INPUTS = frozenset({"study"})  # what a job is handed that starts from records alone (measuring_records.py)


def required_inputs(node: DictConfig) -> list[str]:
    """The keywords of a job's constructor that its yaml does not set and that have no default."""
    return [name for name in required_parameters(node._target_) if name not in node]


def needs_generator(node: DictConfig) -> bool:
    """Whether a job asks for something that there is only with a generator."""
    return bool(GENERATOR_INPUTS & set(required_inputs(node)))


def takes_generator(node: DictConfig) -> bool:
    """Whether a job measures the generator where one is chosen, and maybe the tokenizer where none is."""
    return needs_generator(node) or "drawing" in required_inputs(node)


def machine_of(cfg: DictConfig) -> str:
    """Describes what times were measured on: the device, the threads of a CPU, and precision and compilation."""
    device = find_device(cfg.trainer.accelerator)
    parts = [device_name(device)]
    parts += [f"{cfg.trainer.threads} threads"] if device.type == "cpu" else []
    parts += [cfg.trainer.precision] if cfg.trainer.precision != "fp32" else []
    parts += ["compiled"] if cfg.trainer.compile else []
    return ", ".join(parts)


def needs_tokenizer(node: DictConfig) -> bool:
    """Whether a job asks for something that there is only with a tokenizer; of images alone, none is trained."""
    return bool(TOKENIZER_INPUTS & set(required_inputs(node)))


def apart(metric: SetMetric, a: Tensor, b: Tensor) -> float:
    """A metric's value on the features (n, D) and (m, D) of two sets of images."""
    return metric(gather(Features(a), metric.requires), gather(Features(b), metric.requires), paired=False).value


def splits_of(data: ImageData, protocol: Protocol) -> list[ImageSet]:
    """The images of a protocol's split, in one part or two."""
    return [data.train, data.test] if protocol.split == "all" else [getattr(data, protocol.split)]
