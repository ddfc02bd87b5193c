"""One measurement: from a job's yaml, a tokenizer and a protocol to a record, unless it is known."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import ConcatDataset

from ldbench import artifacts, config, networks
from ldbench.core.device import find_device
from ldbench.core.protocols import ImageData, ImageSet
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.store import LatentStore
from ldbench.plan import plain
from ldbench.results import records
from ldbench.results.protocol import Protocol
from ldbench.sources import Obtained

log = logging.getLogger(__name__)

SPLITS = {"test": "held-out", "train": "training", "all": "training and held-out"}


class Facts:
    """What a job may ask for by a keyword of its constructor that its yaml does not set. Each is made when it is asked for."""

    def __init__(self, cfg: DictConfig, obtained: Obtained, protocol: Protocol, searchpath: Sequence[str]):
        self._cfg = cfg
        self._obtained = obtained
        self._protocol = protocol
        self._searchpath = searchpath

    def tokenizer(self) -> Tokenizer:
        return artifacts.load(self._obtained.folder, searchpath=self._searchpath)

    def tokenizer_name(self) -> str:
        """Of its artifact's folder."""
        return self._obtained.name

    def tokenizer_digest(self) -> str:
        return self._obtained.digest

    def data(self) -> ImageData:
        return self._obtained.data

    def train_latents(self) -> LatentStore:
        """Of the training images; encoded where they are not there."""
        return self._encoder().store("train")

    def heldout_latents(self) -> LatentStore:
        return self._encoder().store("test")

    def _encoder(self) -> Any:
        node = OmegaConf.merge(config.option("job", "encode", self._searchpath), {"num_processes": 1})
        return config.instantiate(node, **{fact: getattr(self, fact)() for fact in asked_facts(node)})

    def images(self) -> ImageSet:
        splits = splits_of(self._obtained.data, self._protocol)
        return splits[0] if len(splits) == 1 else ConcatDataset(splits)

    def names(self) -> Sequence[str]:
        """A name for each of `images`: its file's where it has one, else its place."""
        splits = splits_of(self._obtained.data, self._protocol)
        named, count = [name for part in splits for name in getattr(part, "names", ())], sum(map(len, splits))
        return named if len(named) == count else [f"{place:06d}" for place in range(count)]

    def metrics(self) -> dict[str, Any]:
        return {name: make("metric", name, self._searchpath) for name in self._protocol.reconstruction}

    def extractors(self) -> dict[str, Any]:
        """By name; none where the protocol measures no distances."""
        name = self._protocol.extractor
        return {} if name is None else {name: make_extractor(name, self._cfg, self._searchpath)}

    def distances(self) -> dict[str, Any]:
        return {name: make("distribution", name, self._searchpath) for name in self._protocol.distribution}

    def pixel_rule(self) -> str:
        return self._protocol.pixel_rule

    def latent(self) -> str:
        return self._protocol.latent

    def seed(self) -> int:
        return self._protocol.seed

    def latents(self) -> Path:
        """The folder of all latent stores."""
        return Path(self._cfg.paths.artifacts) / "latents"

    def workers(self) -> int:
        return self._cfg.trainer.workers

    def device(self) -> torch.device:
        return find_device(self._cfg.trainer.accelerator)


FACTS = frozenset(name for name in vars(Facts) if not name.startswith("_"))
COUNTING = {  # what a job asks for -> the protocol's fields that its numbers then depend on
    "images": {"split"},
    "names": {"split"},
    "metrics": {"reconstruction"},
    "extractors": {"extractor"},
    "distances": {"distribution"},
    **{field: {field} for field in ("pixel_rule", "latent", "seed")},
}


def measure(cfg: DictConfig, obtained: Obtained, node: DictConfig, protocol: Protocol, searchpath: Sequence[str] = ()) -> None:
    """Makes a job's measurement of an artifact under the protocol and writes the record, unless that was done before."""
    job, asked = config.find(node._target_), asked_facts(node)
    data = obtained.data
    counting = set().union(*(COUNTING.get(fact, set()) for fact in asked))
    looks = "extractor" in counting and protocol.extractor is not None
    extractor = extractor_digest(protocol.extractor, searchpath) if looks else None
    described = protocol.described(data=data.fingerprint, extractor=extractor, counting=counting)
    settings = plain(node)
    identity = records.record_id(
        job=job.name,
        settings={key: settings[key] for key in job.settings},
        artifacts={"tokenizer": obtained.digest},
        data=data.fingerprint,
        protocol=described["hash"],
        revision=job.revision,
    )
    folder = Path(cfg.paths.records)
    path = records.path_of(folder, job.name, identity)
    figures = path.with_suffix("")  # in the folder beside the record
    left = [figures / file for file in job.leaves(settings)]
    if path.is_file() and all(file.is_file() for file in left) and not cfg.force:
        log.info("Its job %s was measured already (force=true measures again): %s", job.name, path)
        tell(records.read(path))
        for file in left:
            log.info("  left behind: %s", file.resolve())
        return
    facts = Facts(cfg, obtained, protocol, searchpath)
    record = records.Record(
        id=identity,
        job=job.name,
        subject={"tokenizer": cfg.tokenizer.name, "generator": None, "data": data.name},
        metrics=config.instantiate(node, **{fact: getattr(facts, fact)() for fact in asked}).run(figures),
        protocol=described,
        artifacts={"tokenizer": obtained.name},
        config={key: value for key, value in config.named(cfg, searchpath).items() if key != "paths"},
        environment=records.environment(),
        created=records.now(),
    )
    on = f" on {sum(map(len, splits_of(data, protocol)))} {SPLITS[protocol.split]} images" if "images" in asked else ""
    log.info("Measured%s: %s", on, records.write(record, folder))
    tell(record)
    if figures.is_dir():
        log.info("  pictures: %s", figures)


def check_job(node: DictConfig) -> None:
    """Raises ValueError for a node that is no job's, for keys and values that the job does not take, and for facts that nobody knows."""
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
        if name not in FACTS:
            raise ValueError(f"{node._target_} asks for {name}, which its yaml does not set. Facts that a job may ask for: {known}.")
    job.check(plain(node))


def check_protocol(protocol: Protocol, searchpath: Sequence[str] = ()) -> None:
    """Raises ValueError for names that their config groups do not know."""
    for group, names in (("metric", protocol.reconstruction), ("distribution", protocol.distribution)):
        for name in names:
            config.require(group, name, searchpath)
    if protocol.extractor is not None:
        config.require("extractor", protocol.extractor, searchpath)


def asked_facts(node: DictConfig) -> list[str]:
    """The keywords of a job's constructor that its yaml does not set and that have no default."""
    return [name for name in config.required(node._target_) if name not in node]


def make(group: str, name: str, searchpath: Sequence[str] = ()) -> Callable[..., Any]:
    """A metric or a distance by its name in the config group. Raises ValueError for an unknown one."""
    config.require(group, name, searchpath)
    return config.instantiate(config.options(group, searchpath)[name])


def make_extractor(name: str, cfg: DictConfig, searchpath: Sequence[str] = ()) -> Any:
    """An extractor by its name in the config group; a network that it stands on is trained on first use."""
    node = config.option("extractor", name, searchpath)
    network = {"network": networks.obtain(node.network, cfg, searchpath)} if "network" in node else {}
    return config.instantiate({**plain(node), **network})


def extractor_digest(name: str, searchpath: Sequence[str] = ()) -> str:
    """The sha256 of all that an extractor's features depend on."""
    node = config.option("extractor", name, searchpath)
    network: Mapping[str, Any] = {"network": networks.digest_of(node.network, searchpath)} if "network" in node else {}
    return artifacts.digest({**config.named(node, searchpath), **network, "revision": config.find(node._target_).revision})


def splits_of(data: ImageData, protocol: Protocol) -> list[ImageSet]:
    """The images of a protocol's split, in one part or two."""
    return [data.train, data.test] if protocol.split == "all" else [getattr(data, protocol.split)]


def tell(record: records.Record) -> None:
    """The figures of a record, in lines."""
    width = max(map(len, record.metrics), default=0)
    for name, estimate in record.metrics.items():
        interval = "" if estimate.low is None else f"  (95 % interval {estimate.low:.4g} to {estimate.high:.4g})"
        log.info("  %-*s  %.4g%s", width, name, estimate.value, interval)
