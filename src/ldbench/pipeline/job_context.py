"""JobContext: the inputs that a job may ask for, and the protocol's fields that its numbers then depend on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from ldbench.artifacts import store
from ldbench.config.components import import_target, required_parameters
from ldbench.config.compose import Registry, plain
from ldbench.core.generator import Generator
from ldbench.core.interfaces import Guidance, ImageData, ImageSet, Sampler
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.store import LatentStore
from ldbench.io.files import printable
from ldbench.jobs._sampling_variants import SamplingVariants
from ldbench.jobs._set_metrics import SetEvaluator
from ldbench.jobs.throughput import GeneratorSampling, StepTimer
from ldbench.metrics.feature_set import Features, SetMetric, gather
from ldbench.pipeline.components import build_extractor, build_metric, build_teacher, component_digest, extractor_key
from ldbench.pipeline.generator_plan import build_guidance, build_sampler
from ldbench.pipeline.get_generator import build_encoder
from ldbench.pipeline.recipe import is_trained
from ldbench.pipeline.trained_model import MeasuredModel, TrainedModel
from ldbench.pipeline.tuned_guidance import sampling_variants
from ldbench.results.protocol import Protocol
from ldbench.runtime.device import Precision, device_name, find_device


@dataclass(frozen=True)
class EvaluationTarget:
    """What a measurement evaluates: images, and mostly a tokenizer, or a generator of its latents."""

    data: ImageData
    tokenizer: MeasuredModel | None = None
    generator: TrainedModel | None = None

    @property
    def artifacts(self) -> dict[str, MeasuredModel]:
        """The models by role."""
        return {role: found for role in ("tokenizer", "generator") if (found := getattr(self, role)) is not None}

    @property
    def name(self) -> str:
        """The name of the last model, or of the images."""
        return list(self.artifacts.values())[-1].name if self.artifacts else self.data.name

    def restricted_to_job(self, node: DictConfig) -> "EvaluationTarget":
        """Returns the part that a job measures: a generator does not count in a measurement of its tokenizer."""
        tokenizer, generator = requires(node, "tokenizer"), measures_generator(node)
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
        """The tokenizer, in eval mode."""
        return self._tokenizer.load_tokenizer()

    def tokenizer_name(self) -> str:
        """The name of the tokenizer's artifact."""
        return self._tokenizer.name

    def tokenizer_digest(self) -> str:
        """The digest of the tokenizer's recipe."""
        return self._tokenizer.digest

    def tokenizer_key(self) -> str:
        """The sha256 of the tokenizer's recipe and weights."""
        return self._tokenizer.content_key

    def generator(self) -> Generator:
        """The generator, in eval mode."""
        return self._model

    def sampler(self) -> Sampler:
        """The configured sampler."""
        return build_sampler(self._cfg)

    def guidance(self) -> Guidance:
        """The configured guidance."""
        key = None if self._measured.tokenizer is None else self._measured.tokenizer.content_key
        return build_guidance(self._cfg, self._model, self._registry, tokenizer_key=key, has_statistics=True)

    def sampling_variants(self) -> SamplingVariants:
        """The generator's weight averages, and its sampling by other steps and guidance."""
        assert self._measured.generator is not None, "a job that asks for a generator is not run without one"
        key = None if self._measured.tokenizer is None else self._measured.tokenizer.content_key
        return sampling_variants(self._cfg, self._measured.generator, key, self._registry)

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
        """What times are measured on, see `describe_machine`."""
        return describe_machine(self._cfg)

    def precision(self) -> Precision:
        """The trainer's precision."""
        return self._cfg.trainer.precision

    def compiled(self) -> bool:
        """Whether networks are compiled."""
        return self._cfg.trainer.compile

    def sampling_seed(self) -> int:
        """The seed of the samples."""
        return self._cfg.seed

    def data(self) -> ImageData:
        """The images, training and test split."""
        return self._measured.data

    def train_latents(self) -> LatentStore:
        """The latents of the training images, encoded unless they are stored."""
        return build_encoder(self._cfg, self._tokenizer, self._measured.data).store("train")

    def heldout_latents(self) -> LatentStore:
        """The latents of the test images, encoded unless they are stored."""
        return build_encoder(self._cfg, self._tokenizer, self._measured.data).store("test")

    def images(self) -> ImageSet:
        """The images of the protocol's split."""
        splits = protocol_splits(self._measured.data, self._protocol)
        return splits[0] if len(splits) == 1 else ConcatDataset(cast("list[Dataset[Any]]", splits))

    def names(self) -> Sequence[str]:
        """A name for each of `images`: its file's where it has one, with bytes escaped that are no text, else its
        index.
        """
        splits = protocol_splits(self._measured.data, self._protocol)
        named, count = [name for part in splits for name in getattr(part, "names", ())], sum(map(len, splits))
        return (
            [printable(name) for name in named] if len(named) == count else [f"{index:06d}" for index in range(count)]
        )

    def metrics(self) -> dict[str, Any]:
        """The protocol's metrics of single images, by name."""
        return {
            name: build_metric("metric", name, self._protocol, self._registry) for name in self._protocol.reconstruction
        }

    def sets(self) -> SetEvaluator | None:
        """The metrics on sets of images, with their extractor; None where the protocol measures none."""
        name = self._protocol.extractor
        return None if name is None else self._evaluator(name, self._protocol.distribution)

    def ratio_sets(self) -> Mapping[str, Callable[[], SetEvaluator]]:
        """Builds the evaluator of FDr on each of the protocol's extractors for it, by extractor."""
        return {name: partial(self._evaluator, name, (RATIO,)) for name in self._protocol.ratio_extractors}

    def extractors(self) -> dict[str, Any]:
        """The extractor by its name; empty where the protocol measures no sets."""
        name = self._protocol.extractor
        return {} if name is None else {name: build_extractor(name, self._cfg, self._protocol, self._registry)}

    def distances(self) -> dict[str, Any]:
        """The protocol's distances between the features of images and of their reconstructions, by name. They know no
        labels, and one that would weight by them has the name for that.
        """
        made = {
            name: build_metric("distribution", name, self._protocol, self._registry)
            for name in self._protocol.distribution
        }
        return {
            name + (getattr(metric, "suffixes", None) or ("",))[-1]: partial(distance_of_pairs, metric)
            for name, metric in made.items()
            if metric.is_distance and metric.requires <= {"normal", "features"}
        }

    def split(self) -> str:
        """The protocol's split: train, test or all."""
        return self._protocol.split

    def pixel_rule(self) -> str:
        """How images become uint8: round or truncate."""
        return self._protocol.pixel_rule

    def latent(self) -> str:
        """Which latent is decoded: mean or sample."""
        return self._protocol.latent

    def seed(self) -> int:
        """The seed of sampled latents."""
        return self._protocol.seed

    def num_samples(self) -> int:
        """How many samples are drawn."""
        return self._protocol.num_samples

    def labels(self) -> str | Sequence[int]:
        """The labels of the samples: balanced, random, or a list of classes."""
        return self._protocol.labels

    def reference(self) -> str:
        """What samples are compared with: a split, or the path of an .npz."""
        return self._protocol.reference

    def latents(self) -> str:
        """The folder of all latent stores, or their address."""
        return self._cfg.paths.latents

    def teachers(self) -> Callable[[str], Any]:
        """Builds a teacher by its name in the config group; a feature network that it uses is trained on first use."""
        return lambda name: build_teacher(name, self._cfg, self._registry)

    def workers(self) -> int:
        """How many loader processes read images."""
        return self._cfg.trainer.workers

    def device(self) -> torch.device:
        """The device to compute on."""
        return find_device(self._cfg.trainer.accelerator)

    def _evaluator(self, extractor: str, metrics: Sequence[str]) -> SetEvaluator:
        return SetEvaluator(
            label=extractor,
            extractor=build_extractor(extractor, self._cfg, self._protocol, self._registry),
            key=extractor_key(extractor, self._cfg, self._protocol, self._registry),
            metrics={key: build_metric("distribution", key, self._protocol, self._registry) for key in metrics},
            metrics_key=store.digest(
                {key: component_digest("distribution", key, self._protocol, self._registry) for key in metrics}
            ),
            kept=self._protocol.kept,
            folder=Path(self._cfg.paths.artifacts) / "features",
            workers=self.workers(),
            device=self.device(),
        )

    def _step_times(self, steps: int, batch_size: int | None) -> Mapping[str, Mapping[str, float]]:
        kind: Literal["tokenizer", "generator"] = "tokenizer" if self._measured.generator is None else "generator"
        if not is_trained(self._cfg[kind]):
            return {}
        from ldbench.pipeline import step_timing  # Lightning takes seconds to load

        if kind == "tokenizer":
            return step_timing.time_tokenizer_steps(self._cfg, steps, batch_size, registry=self._registry)
        return step_timing.time_generator_steps(
            self._cfg, self._tokenizer, self._measured.data, steps, batch_size, registry=self._registry
        )

    @property
    def _tokenizer(self) -> MeasuredModel:
        assert self._measured.tokenizer is not None, "a job that asks for a tokenizer is not run without one"
        return self._measured.tokenizer

    @cached_property
    def _model(self) -> Generator:
        assert self._measured.generator is not None, "a job that asks for a generator is not run without one"
        return self._measured.generator.load_generator()


RATIO = "fdr"  # the metric on a protocol's `ratio_extractors`
JOB_INPUTS = frozenset(name for name in vars(JobContext) if not name.startswith("_"))
PROTOCOL_FIELDS = {  # what a job asks for -> the protocol's fields that its numbers then depend on
    "images": {"split"},
    "names": {"split"},
    "metrics": {"reconstruction"},
    "sets": {"extractor", "distribution", "kept"},
    "ratio_sets": {"ratio_extractors"},
    "extractors": {"extractor"},
    "distances": {"distribution"},
    **{field: {field} for field in ("split", "pixel_rule", "latent", "seed", "num_samples", "labels", "reference")},
}
RECORD_INPUTS = frozenset({"study"})  # the inputs of a job that starts from records alone (measure_records.py)


def required_inputs(node: DictConfig) -> list[str]:
    """Returns the keywords of a job's constructor that its yaml does not set, that have no default, and that it needs
    with its settings.
    """
    without = unneeded_inputs(node)
    own = set(map(str, node.keys()))  # also those whose value the command line must give
    return [name for name in required_parameters(node._target_) if name not in own | without]


def unneeded_inputs(node: DictConfig) -> frozenset[str]:
    """Returns the inputs that a job does without by its settings; it is given None in their place."""
    job = import_target(node._target_)
    return job.unneeded(plain(node)) if hasattr(job, "unneeded") else frozenset()


def requires(node: DictConfig, subject: Literal["tokenizer", "generator", "records"]) -> bool:
    """Whether a job cannot measure without this subject."""
    return subject in getattr(import_target(node._target_), "requires", ())


def measures_generator(node: DictConfig) -> bool:
    """Whether a job measures the generator where one is chosen; some measure the tokenizer where none is."""
    return requires(node, "generator") or "generator" in getattr(import_target(node._target_), "accepts", ())


def describe_machine(cfg: DictConfig) -> str:
    """Describes what times were measured on: the device, the threads of a CPU, and precision and compilation."""
    device = find_device(cfg.trainer.accelerator)
    parts = [device_name(device)]
    parts += [f"{cfg.trainer.threads} threads"] if device.type == "cpu" else []
    parts += [cfg.trainer.precision] if cfg.trainer.precision != "fp32" else []
    parts += ["compiled"] if cfg.trainer.compile else []
    return ", ".join(parts)


def distance_of_pairs(metric: SetMetric, a: Tensor, b: Tensor) -> float:
    """A metric's value on the features (n, D) of images and of their reconstructions."""
    return metric(gather(Features(a), metric.requires), gather(Features(b), metric.requires), paired=True).value


def protocol_splits(data: ImageData, protocol: Protocol) -> list[ImageSet]:
    """The images of a protocol's split, in one part or two."""
    return [data.train, data.test] if protocol.split == "all" else [getattr(data, protocol.split)]
