"""From a config to artifacts and records: what exists is reused, what is missing is built."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from ldbench import artifacts, config
from ldbench.core.device import find_device
from ldbench.core.protocols import Job
from ldbench.core.tokenizer import Tokenizer
from ldbench.jobs import reconstruct
from ldbench.plan import Plan, make_plan, plain
from ldbench.results import records
from ldbench.results.protocol import Protocol
from ldbench.tasks.processes import is_child

log = logging.getLogger(__name__)


def train(cfg: DictConfig, searchpath: Sequence[str] = ()) -> Path:
    """Trains the configured tokenizer unless it is there, measures what it reconstructs unless that is known, and returns the artifact's folder.

    Raises ValueError, before any work begins, for a config whose parts do not fit.
    """
    torch.set_num_threads(cfg.trainer.threads)
    planned = make_plan(cfg, searchpath)
    if is_child():  # its parent holds the lock, and waits for it in the middle of the training
        build(planned)
        return planned.folder
    waiting = f"Another process is building {planned.name}. Waiting for it."
    with artifacts.building_lock(planned.folder, notify=lambda: log.info(waiting)):
        if artifacts.is_complete(planned.folder):
            log.info("Tokenizer %s is there already: %s", planned.name, planned.folder)
        else:
            started = time.monotonic()
            export(planned, build(planned), seconds=time.monotonic() - started)
    measure(planned)
    return planned.folder


def build(planned: Plan) -> Tokenizer:
    """Trains a planned tokenizer, after a rehearsal."""
    from ldbench import training  # Lightning takes seconds to load: what is there already need not wait for it

    training.rehearse(planned)
    return training.fit(planned)


def export(planned: Plan, tokenizer: Tokenizer, *, seconds: float) -> None:
    """Stores the finished tokenizer as an artifact."""
    provenance = {"created": records.now(), "seconds": round(seconds, 1), "environment": records.environment()}
    artifacts.save(tokenizer, planned.folder, planned.blueprint, recipe=planned.recipe, digest=planned.digest, provenance=provenance)
    log.info("Trained in %.0f s. Tokenizer: %s", seconds, planned.folder)


def measure(planned: Plan) -> None:
    """Measures the artifact's reconstructions under the protocol and writes the record, unless that was done before."""
    cfg, data = planned.cfg, planned.data
    protocol = Protocol(**plain(cfg.protocol))
    described = protocol.described(data=data.fingerprint)
    identity = records.record_id(
        job="reconstruct",
        settings={},
        artifacts={"tokenizer": planned.digest},
        data=data.fingerprint,
        protocol=described["hash"],
        revision=reconstruct.REVISION,
    )
    folder = Path(cfg.paths.records)
    path = records.path_of(folder, "reconstruct", identity)
    if path.is_file() and not cfg.force:
        log.info("Its reconstructions were measured already: %s", path)
        tell(records.read(path))
        return
    job: Job = config.instantiate(
        cfg.jobs.reconstruct,
        tokenizer=artifacts.load(planned.folder, searchpath=planned.searchpath),
        images=getattr(data, protocol.split),
        metrics={name: make_metric(name, planned.searchpath) for name in protocol.reconstruction},
        pixel_rule=protocol.pixel_rule,
        latent=protocol.latent,
        seed=protocol.seed,
        workers=cfg.trainer.workers,
        device=find_device(cfg.trainer.accelerator),
    )
    metrics = job.run(path.with_suffix(""))  # figures, in the folder beside the record
    record = records.Record(
        id=identity,
        job="reconstruct",
        subject={"tokenizer": cfg.tokenizer.name, "generator": None, "data": data.name},
        metrics=metrics,
        protocol=described,
        artifacts={"tokenizer": planned.name},
        config=config.named(cfg, planned.searchpath),
        environment=records.environment(),
        created=records.now(),
    )
    log.info("Measured on %d held-out images: %s", len(getattr(data, protocol.split)), records.write(record, folder))
    tell(record)


def make_metric(name: str, searchpath: Sequence[str] = ()) -> reconstruct.Metric:
    """A reconstruction metric by its name in the config group `metric`. Raises ValueError for an unknown one."""
    known = config.options("metric", searchpath)
    if name not in known:
        raise ValueError(f"There is no metric named {name!r}.{config.nearest(name, list(known))} Known: {', '.join(sorted(known))}.")
    return config.instantiate(known[name])


def tell(record: records.Record) -> None:
    """The figures of a record, in lines."""
    for name, estimate in record.metrics.items():
        interval = "" if estimate.low is None else f"  (95 % interval {estimate.low:.4g} to {estimate.high:.4g})"
        log.info("  %-6s %.4g%s", name, estimate.value, interval)
