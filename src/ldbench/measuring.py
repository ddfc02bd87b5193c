"""One measurement: from a job's yaml, a tokenizer and a protocol to a record, unless it is known."""

import copy
import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, flag_override
from torch import Tensor
from torch.utils.data import ConcatDataset

from ldbench import artifacts, config, networks
from ldbench.cells import ObtainedGenerator, make_encoder
from ldbench.core.device import find_device
from ldbench.core.protocols import Guidance, ImageData, ImageSet, Sampler
from ldbench.core.seen import SOURCE, Features, SetMetric, gather
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.store import LatentStore
from ldbench.generator import Generator
from ldbench.generator_plan import make_guidance, make_sampler
from ldbench.jobs.passes import SetMeasures
from ldbench.plan import plain, with_digests
from ldbench.results import records
from ldbench.results.protocol import Protocol
from ldbench.sources import Obtained

log = logging.getLogger(__name__)

SPLITS = {"test": "held-out", "train": "training", "all": "training and held-out"}


class Facts:
    """What a job may ask for by a keyword of its constructor that its yaml does not set. Each is made when it is asked for."""

    def __init__(self, cfg: DictConfig, obtained: Obtained, generator: ObtainedGenerator | None, protocol: Protocol, searchpath: Sequence[str]):
        self._cfg = cfg
        self._obtained = obtained
        self._generator = generator
        self._protocol = protocol
        self._searchpath = searchpath

    def tokenizer(self) -> Tokenizer:
        return artifacts.load(self._obtained.folder, searchpath=self._searchpath)

    def tokenizer_name(self) -> str:
        """Of its artifact's folder."""
        return self._obtained.name

    def tokenizer_digest(self) -> str:
        return self._obtained.digest

    def generator(self) -> Generator:
        return self._model

    def sampler(self) -> Sampler:
        return make_sampler(self._cfg)

    def guidance(self) -> Guidance:
        return make_guidance(self._cfg, self._model, self._searchpath)

    def sampling_seed(self) -> int:
        return self._cfg.seed

    def data(self) -> ImageData:
        return self._obtained.data

    def train_latents(self) -> LatentStore:
        """Of the training images; encoded where they are not there."""
        return make_encoder(self._cfg, self._obtained, self._searchpath).store("train")

    def heldout_latents(self) -> LatentStore:
        return make_encoder(self._cfg, self._obtained, self._searchpath).store("test")

    def images(self) -> ImageSet:
        splits = splits_of(self._obtained.data, self._protocol)
        return splits[0] if len(splits) == 1 else ConcatDataset(splits)

    def names(self) -> Sequence[str]:
        """A name for each of `images`: its file's where it has one, else its place."""
        splits = splits_of(self._obtained.data, self._protocol)
        named, count = [name for part in splits for name in getattr(part, "names", ())], sum(map(len, splits))
        return named if len(named) == count else [f"{place:06d}" for place in range(count)]

    def metrics(self) -> dict[str, Any]:
        return {name: make("metric", name, self._protocol, self._searchpath) for name in self._protocol.reconstruction}

    def sets(self) -> SetMeasures | None:
        """The metrics on sets of images, and the extractor that they look through; None where the protocol measures none."""
        name = self._protocol.extractor
        if name is None:
            return None
        return SetMeasures(
            label=name,
            extractor=make_extractor(name, self._cfg, self._protocol, self._searchpath),
            digest=digest_of("extractor", name, self._protocol, self._searchpath),
            metrics={key: make("distribution", key, self._protocol, self._searchpath) for key in self._protocol.distribution},
            kept=self._protocol.kept,
            folder=Path(self._cfg.paths.artifacts) / "features",
            workers=self.workers(),
            device=self.device(),
        )

    def extractors(self) -> dict[str, Any]:
        """By name; none where the protocol measures no sets."""
        name = self._protocol.extractor
        return {} if name is None else {name: make_extractor(name, self._cfg, self._protocol, self._searchpath)}

    def distances(self) -> dict[str, Any]:
        """Of the features of two sets of images: those of the protocol's metrics that need no more."""
        made = {name: make("distribution", name, self._protocol, self._searchpath) for name in self._protocol.distribution}
        return {name: partial(apart, metric) for name, metric in made.items() if metric.is_distance and metric.needs <= {"normal", "features"}}

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
        """Makes a teacher by its name in the config group, when it is asked to; a network that it stands on is trained on first use."""
        return lambda name: make_teacher(name, self._cfg, self._searchpath)

    def workers(self) -> int:
        return self._cfg.trainer.workers

    def device(self) -> torch.device:
        return find_device(self._cfg.trainer.accelerator)

    @cached_property
    def _model(self) -> Generator:
        assert self._generator is not None, "a job that asks for a generator is not run without one"
        return self._generator.load(self._searchpath)


FACTS = frozenset(name for name in vars(Facts) if not name.startswith("_"))
COUNTING = {  # what a job asks for -> the protocol's fields that its numbers then depend on
    "images": {"split"},
    "names": {"split"},
    "metrics": {"reconstruction"},
    "sets": {"extractor", "distribution", "kept"},
    "extractors": {"extractor"},
    "distances": {"distribution"},
    **{field: {field} for field in ("split", "pixel_rule", "latent", "seed", "num_samples", "labels", "reference")},
}
OF_GENERATOR = frozenset({"generator", "sampler", "guidance", "sampling_seed"})  # facts that there are only with a generator
OF_RECORDS = frozenset({"study"})  # what a job is handed that starts from records alone (comparing.py)
PROTOCOLS = ("num_samples", "labels")  # keys of a job's yaml in which null stands for the protocol's, and anything else takes its place


def measure(
    cfg: DictConfig,
    obtained: Obtained,
    generator: ObtainedGenerator | None,
    node: DictConfig,
    protocol: Protocol,
    searchpath: Sequence[str] = (),
) -> None:
    """Makes a job's measurement of artifacts under the protocol and writes the record, unless that was done before."""
    protocol, node = settled(node, protocol)
    job, asked = config.find(node._target_), asked_facts(node)
    generator = generator if OF_GENERATOR & set(asked) else None
    data = obtained.data
    described = describe(cfg, data, protocol, asked, searchpath)
    settings = plain(node)
    identity = records.record_id(
        job=job.name,
        settings=with_teacher({key: settings[key] for key in job.settings if key in settings}, searchpath)
        | ({} if generator is None else drawn_by(cfg, searchpath)),
        artifacts={"tokenizer": obtained.digest} | ({} if generator is None else {"generator": generator.digest}),
        data=data.fingerprint,
        protocol=described["hash"],
        revision=job.revision,
    )
    folder = Path(cfg.paths.records)
    path = records.path_of(folder, job.name, identity)
    figures = path.with_suffix("")  # in the folder beside the record
    left = [figures / file for file in job.leaves(settings)]
    if path.is_file() and all(file.exists() for file in left) and not cfg.force:
        log.info("Its job %s was measured already (force=true measures again): %s", job.name, path)
        tell(records.read(path))
        for file in left:
            log.info("  left behind: %s", file.resolve())
        return
    facts = Facts(cfg, obtained, generator, protocol, searchpath)
    record = records.Record(
        id=identity,
        job=job.name,
        subject={
            "tokenizer": label(obtained, cfg.tokenizer),
            "generator": None if generator is None else label(generator, cfg.generator),
            "data": data.name,
        },
        metrics=config.instantiate(node, **{fact: getattr(facts, fact)() for fact in asked}).run(figures),
        protocol=described,
        artifacts={"tokenizer": obtained.name} | ({} if generator is None else {"generator": generator.name}),
        config={key: value for key, value in config.named(cfg, searchpath).items() if key != "paths"},
        environment=records.environment(),
        created=records.now(),
    )
    on = f" on {sum(map(len, splits_of(data, protocol)))} {SPLITS[protocol.split]} images" if "images" in asked else ""
    log.info("Measured%s: %s", on, records.write(record, folder))
    tell(record)
    if figures.is_dir():
        log.info("  left behind: %s", figures)


def apart(metric: SetMetric, a: Tensor, b: Tensor) -> float:
    """A metric's value on the features (n, D) and (m, D) of two sets of images."""
    return metric(gather(Features(a), metric.needs), gather(Features(b), metric.needs), paired=False).value


def label(obtained: Obtained | ObtainedGenerator, node: DictConfig) -> str:
    """What people call an artifact: the name in the config, or where that says only a path, the folder's without its digest."""
    return obtained.name.removesuffix(f"-{obtained.digest[:8]}") if "path" in node else str(node.name)


def settled(node: DictConfig, protocol: Protocol) -> tuple[Protocol, DictConfig]:
    """The protocol with what a job's yaml says in its place, and the node without it. Raises ValueError for values that a protocol cannot have."""
    said = {key: value for key, value in plain(node).items() if key in PROTOCOLS and value is not None}
    node = copy.deepcopy(node)  # within its config still
    with flag_override(node, ["struct", "readonly"], [False, False]):
        for key in PROTOCOLS:
            node.pop(key, None)
    return replace(protocol, **said), node


def describe(cfg: DictConfig, data: ImageData, protocol: Protocol, asked: Sequence[str], searchpath: Sequence[str]) -> dict[str, Any]:
    """The protocol as a record holds it: what of it counts for what a job asks for, with the hash.

    A sampler and a guidance that are the generator's own are called so: numbers of several generators, each sampled its own way, can be ranked.
    """
    counting = set().union(*(COUNTING.get(fact, set()) for fact in asked))
    drawn = digests_of(protocol, counting, searchpath)
    if "sampler" in asked:
        own = config.compose("run", [f"generator={cfg.generator.name}"], searchpath=searchpath)
        said = {key: config.named(cfg[key], searchpath) for key in ("sampler", "guidance")}
        drawn |= {key: "own" if value == config.named(own[key], searchpath) else value for key, value in said.items()}
    return protocol.described(data=data.fingerprint, counting=counting, **drawn)


def drawn_by(cfg: DictConfig, searchpath: Sequence[str]) -> dict[str, Any]:
    """How samples are drawn: what their numbers depend on besides the artifacts."""
    said = {key: config.named(cfg[key], searchpath) for key in ("sampler", "guidance")}
    if "guide" in said["guidance"]:
        said["guidance"]["guide"] = artifacts.read_manifest(artifacts.local(cfg.guidance.guide))["digest"]
    revisions = {key: config.find(cfg[key]._target_).revision for key in ("sampler", "guidance")}
    return {**said, "revisions": revisions, "sampling_seed": cfg.seed}


def check_job(node: DictConfig, protocol: Protocol, searchpath: Sequence[str] = ()) -> None:
    """Raises ValueError for a node that is no job's, for keys and values that the job does not take, and for facts that nobody knows."""
    _, node = settled(node, protocol)
    config.check_types(node)
    job = config.find(node._target_)
    for attribute in ("name", "revision", "settings", "check", "leaves"):
        if not hasattr(job, attribute):
            raise ValueError(f"{node._target_} is no job: it has no {attribute}. ldbench.jobs.probe.Probe is one to look at.")
    parameters = inspect.signature(job).parameters
    for key in node:
        if not str(key).startswith("_") and key not in parameters:
            raise ValueError(f"There is no config key {node._get_full_key(key)}.{config.nearest(str(key), list(parameters.keys() - FACTS))}")
    known = ", ".join(sorted(FACTS))
    for name in asked_facts(node):
        if name not in FACTS | OF_RECORDS:
            raise ValueError(f"{node._target_} asks for {name}, which its yaml does not set. Facts that a job may ask for: {known}.")
    if node.get("teacher") is not None:
        config.require("teacher", node.teacher, searchpath)
    job.check(plain(node))
    for value in plain(node).values():
        if isinstance(value, Mapping) and "_target_" in value:
            config.instantiate(value)  # so that what it refuses is told before any work begins


def check_protocol(protocol: Protocol, searchpath: Sequence[str] = ()) -> None:
    """Raises ValueError for names that their config groups do not know, and for metrics on what the extractor does not give."""
    for group, names in (("metric", protocol.reconstruction), ("distribution", protocol.distribution)):
        for name in names:
            config.require(group, name, searchpath)
    if protocol.extractor is None:
        return
    gives = config.find(config.option("extractor", protocol.extractor, searchpath)._target_).gives
    for name in protocol.distribution:
        needs = config.find(config.option("distribution", name, searchpath)._target_).needs
        missing = sorted({SOURCE[need] for need in needs if need in SOURCE} - gives)
        if missing:
            told = f"protocol.distribution names {name}, which is of {missing[0]}: extractor={protocol.extractor} gives {', '.join(sorted(gives))}."
            raise ValueError(f"{told} Leave {name} out, or choose another protocol.extractor.")


def check_weights(jobs: Sequence[DictConfig], protocol: Protocol, searchpath: Sequence[str] = ()) -> None:
    """Raises ValueError, before any work begins, where the weights of a metric or an extractor that a job asks for cannot be had."""
    counting = {field for node in jobs for fact in asked_facts(node) for field in COUNTING.get(fact, ())}
    named = [("metric", name) for name in protocol.reconstruction if "reconstruction" in counting]
    named += [("extractor", protocol.extractor)] if protocol.extractor and "extractor" in counting else []
    for group, name in named:
        node = node_of(group, name, protocol, searchpath)
        getattr(config.find(node["_target_"]), "check", lambda: None)()
        weights_of(name, node)


def asked_facts(node: DictConfig) -> list[str]:
    """The keywords of a job's constructor that its yaml does not set and that have no default."""
    return [name for name in config.required(node._target_) if name not in node]


def needs_generator(node: DictConfig) -> bool:
    """Whether a job asks for something that there is only with a generator."""
    return bool(OF_GENERATOR & set(asked_facts(node)))


def node_of(group: str, name: str, protocol: Protocol, searchpath: Sequence[str] = ()) -> dict[str, Any]:
    """The yaml of a metric, a distance or an extractor, with the weights that the protocol gives it. Raises ValueError for an unknown one."""
    composed = config.option(group, name, searchpath)
    given = protocol.weights.get(name) if group in ("metric", "extractor") else None
    if given is not None:
        if "weights" not in composed:
            raise ValueError(f"protocol.weights.{name} has nothing to do: {name} takes no weights.")
        composed.weights.source = given
    if "weights" in composed and OmegaConf.is_missing(composed.weights, "source"):
        raise ValueError(f"{group}={name} needs weights that you give it: protocol.weights.{name}=PATH.")
    return plain(composed)


def weights_of(name: str, node: Mapping[str, Any]) -> Path | None:
    """The file of a component's weights; None where it has none. Raises ValueError with what to do where it cannot be had."""
    if "weights" not in node:
        return None
    try:
        return artifacts.locate(node["weights"]["source"])
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{error}\n{name} needs it: say protocol.weights.{name}=PATH, or choose a protocol without it, such as protocol=default."
        ) from error


def make(group: str, name: str, protocol: Protocol, searchpath: Sequence[str] = ()) -> Any:
    """A metric or a distance by its name in the config group. Raises ValueError for an unknown one."""
    node = node_of(group, name, protocol, searchpath)
    return config.instantiate(node, **sums_asked(name, node))


def make_extractor(name: str, cfg: DictConfig, protocol: Protocol, searchpath: Sequence[str] = ()) -> Any:
    """An extractor by its name in the config group; a network that it stands on is trained on first use."""
    node = node_of("extractor", name, protocol, searchpath)
    network = {"network": networks.obtain(node["network"], cfg, searchpath)} if "network" in node else {}
    return config.instantiate({**node, **network}, **sums_asked(name, node))


def make_teacher(name: str, cfg: DictConfig, searchpath: Sequence[str] = ()) -> Any:
    """A teacher by its name in the config group; a network that it stands on is trained on first use."""
    node = config.option("teacher", name, searchpath)
    network = {"network": networks.obtain(node.network, cfg, searchpath)} if "network" in node else {}
    return config.instantiate({**plain(node), **network})


def with_teacher(settings: Mapping[str, Any], searchpath: Sequence[str] = ()) -> dict[str, Any]:
    """A job's settings with the teacher that they name told by all that its features depend on."""
    if settings.get("teacher") is None:
        return dict(settings)
    node = plain(config.option("teacher", settings["teacher"], searchpath))
    told = {**config.named(with_digests(node, searchpath), searchpath), "revision": config.find(node["_target_"]).revision}
    return {**settings, "teacher": {"name": settings["teacher"], "digest": artifacts.digest(told)}}


def sums_asked(name: str, node: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of a component's weights file, where its constructor asks for it."""
    file = weights_of(name, node)
    return {"sha256": artifacts.file_digest(file)} if file is not None and "sha256" in config.required(node["_target_"]) else {}


def digest_of(group: str, name: str, protocol: Protocol, searchpath: Sequence[str] = ()) -> str:
    """The sha256 of all that the numbers of a metric or an extractor depend on: of files their content, not their place."""
    node = node_of(group, name, protocol, searchpath)
    weights_of(name, node)
    revision = getattr(config.find(node["_target_"]), "revision", 1)
    return artifacts.digest({**config.named(with_digests(node, searchpath), searchpath), "revision": revision})


def digests_of(protocol: Protocol, counting: Collection[str], searchpath: Sequence[str] = ()) -> dict[str, Any]:
    """What a protocol's hash says of the extractor, of the metrics on sets and of the weights of metrics, where these count."""
    found: dict[str, Any] = {}
    if "extractor" in counting and protocol.extractor is not None:
        found["extractor"] = digest_of("extractor", protocol.extractor, protocol, searchpath)
    weighed = [name for name in protocol.reconstruction if "weights" in node_of("metric", name, protocol, searchpath)]
    if "reconstruction" in counting and weighed:
        found["weights"] = {name: digest_of("metric", name, protocol, searchpath) for name in weighed}
    return found


def splits_of(data: ImageData, protocol: Protocol) -> list[ImageSet]:
    """The images of a protocol's split, in one part or two."""
    return [data.train, data.test] if protocol.split == "all" else [getattr(data, protocol.split)]


def tell(record: records.Record) -> None:
    """The figures of a record, in lines."""
    width = max(map(len, record.metrics), default=0)
    for name, estimate in record.metrics.items():
        interval = "" if estimate.low is None else f"  (95 % interval {estimate.low:.4g} to {estimate.high:.4g})"
        log.info("  %-*s  %.4g%s", width, name, estimate.value, interval)
