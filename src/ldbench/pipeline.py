"""From a config to artifacts and records: what exists is reused, what is missing is built or measured."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import ConcatDataset

from ldbench import artifacts, config
from ldbench.core.device import find_device
from ldbench.core.protocols import ImageData, ImageSet, Job
from ldbench.jobs import reconstruct
from ldbench.plan import check_keys, check_names, check_trainer, plain
from ldbench.results import records
from ldbench.results.protocol import Protocol
from ldbench.sources import Obtained, obtain
from ldbench.tasks.processes import is_child

log = logging.getLogger(__name__)


def train(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Trains or imports the configured tokenizer unless it is there, measures what it reconstructs unless that is known.

    Returns the artifact's folder. Raises ValueError, before any work begins, for a config whose parts do not fit.
    """
    return run_jobs(cfg, cfg.jobs, searchpath)


def run(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Makes the configured measurement unless it is known. Returns the artifact's folder; raises as `train`."""
    return run_jobs(cfg, {"reconstruct": cfg.job}, searchpath)


def run_jobs(cfg: DictConfig, jobs: Mapping[str, Any], searchpath: Sequence[str]) -> Path:
    """Obtains the tokenizer and makes the measurements that are not known yet."""
    check_keys(cfg)
    check_names(cfg)
    check_trainer(cfg)
    for node in jobs.values():
        config.check_types(node)
    torch.set_num_threads(cfg.trainer.threads)
    protocol = Protocol(**plain(cfg.protocol))
    for name in protocol.reconstruction:
        require_metric(name, searchpath)
    obtained = obtain(cfg, searchpath)
    if not is_child():
        for node in jobs.values():
            with artifacts.building_lock(Path(cfg.paths.records) / obtained.name):  # of two at once, one measures
                measure(cfg, obtained, node, protocol, searchpath)
    return obtained.folder


def measure(cfg: DictConfig, obtained: Obtained, node: Any, protocol: Protocol, searchpath: Sequence[str]) -> None:
    """Measures an artifact's reconstructions under the protocol and writes the record, unless that was done before."""
    data = obtained.data
    described = protocol.described(data=data.fingerprint)
    identity = records.record_id(
        job="reconstruct",
        settings={},
        artifacts={"tokenizer": obtained.digest},
        data=data.fingerprint,
        protocol=described["hash"],
        revision=reconstruct.REVISION,
    )
    folder = Path(cfg.paths.records)
    path = records.path_of(folder, "reconstruct", identity)
    figures = path.with_suffix("")  # in the folder beside the record
    drawn = not node.save_images or (figures / reconstruct.TABLE).is_file()
    if path.is_file() and drawn and not cfg.force:
        log.info("Its reconstructions were measured already (force=true measures again): %s", path)
        tell(records.read(path))
        return
    images, names = images_of(data, protocol.split)
    job: Job = config.instantiate(
        node,
        tokenizer=artifacts.load(obtained.folder, searchpath=searchpath),
        images=images,
        names=names,
        metrics={name: make_metric(name, searchpath) for name in protocol.reconstruction},
        pixel_rule=protocol.pixel_rule,
        latent=protocol.latent,
        seed=protocol.seed,
        workers=cfg.trainer.workers,
        device=find_device(cfg.trainer.accelerator),
    )
    record = records.Record(
        id=identity,
        job="reconstruct",
        subject={"tokenizer": cfg.tokenizer.name, "generator": None, "data": data.name},
        metrics=job.run(figures),
        protocol=described,
        artifacts={"tokenizer": obtained.name},
        config={key: value for key, value in config.named(cfg, searchpath).items() if key != "paths"},
        environment=records.environment(),
        created=records.now(),
    )
    which = {"test": "held-out", "train": "training", "all": "training and held-out"}[protocol.split]
    log.info("Measured on %d %s images: %s", len(images), which, records.write(record, folder))
    tell(record)
    log.info("  pictures: %s", figures)


def images_of(data: ImageData, split: str) -> tuple[ImageSet, Sequence[str]]:
    """The images of a protocol's split, and a name for each: its file's where it has one, else its place."""
    splits = [data.train, data.test] if split == "all" else [getattr(data, split)]
    images = splits[0] if len(splits) == 1 else ConcatDataset(splits)
    named = [name for part in splits for name in getattr(part, "names", ())]
    return images, named if len(named) == len(images) else [f"{place:06d}" for place in range(len(images))]


def require_metric(name: str, searchpath: Sequence[str] = ()) -> None:
    """Raises ValueError unless the config group `metric` knows the name."""
    known = config.options("metric", searchpath)
    if name not in known:
        raise ValueError(f"There is no metric named {name!r}.{config.nearest(name, list(known))} Known: {', '.join(sorted(known))}.")


def make_metric(name: str, searchpath: Sequence[str] = ()) -> reconstruct.Metric:
    """A reconstruction metric by its name in the config group `metric`. Raises ValueError for an unknown one."""
    require_metric(name, searchpath)
    return config.instantiate(config.options("metric", searchpath)[name])


def tell(record: records.Record) -> None:
    """The figures of a record, in lines."""
    for name, estimate in record.metrics.items():
        interval = "" if estimate.low is None else f"  (95 % interval {estimate.low:.4g} to {estimate.high:.4g})"
        log.info("  %-6s %.4g%s", name, estimate.value, interval)
