"""One measurement: from a job's yaml, a tokenizer and a protocol to a record, unless it is known."""

import copy
import inspect
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, flag_override

from ldbench.artifacts import hub, store
from ldbench.config.components import import_target, instantiate, validate_types
from ldbench.config.compose import Registry, cached, plain
from ldbench.config.error_messages import did_you_mean
from ldbench.core.interfaces import ImageData
from ldbench.io.files import add_path_to_errors
from ldbench.io.safetensors_io import write_tensors
from ldbench.metrics import adm_npz
from ldbench.metrics.feature_set import SOURCE
from ldbench.pipeline.components import (
    component_config,
    component_digest,
    extractor_key,
    weights_checksum,
    weights_path,
    with_teacher,
)
from ldbench.pipeline.job_context import (
    JOB_INPUTS,
    PROTOCOL_FIELDS,
    RECORD_INPUTS,
    EvaluationTarget,
    JobContext,
    describe_machine,
    protocol_splits,
    required_inputs,
)
from ldbench.pipeline.stored_records import hashed_settings
from ldbench.pipeline.trained_model import TrainedModel
from ldbench.results import per_image, records
from ldbench.results.protocol import Protocol
from ldbench.tracking.send_records import send_record

log = logging.getLogger(__name__)

SPLITS = {"test": "held-out", "train": "training", "all": "training and held-out"}
# keys of a job's yaml in which null stands for the protocol's, and anything else takes its place
PROTOCOLS = ("num_samples", "labels")


def measure(
    cfg: DictConfig, measured: EvaluationTarget, node: DictConfig, protocol: Protocol, registry: Registry = Registry()
) -> None:
    """Makes a job's measurement under the protocol and writes the record, unless that was done before."""
    protocol, node = merge_overrides(node, protocol)
    job, asked = import_target(node._target_), required_inputs(node)
    data = measured.data
    described = describe(cfg, data, protocol, asked, registry)
    settings = plain(node)
    extractor = protocol.extractor if described.get("extractor") is not None else None
    features = None if extractor is None else extractor_key(extractor, cfg, protocol, registry)
    identity = record_identity(cfg, measured, node, described["hash"], features, registry)
    folder = Path(cfg.paths.records)
    path = records.path_of(folder, job.name, identity)
    figures = path.with_suffix("")  # in the folder beside the record
    left = [figures / file for file in job.output_files(settings)]
    if path.is_file() and all(file.exists() for file in left) and not cfg.force:
        log.info("Its job %s was measured already (force=true measures again): %s", job.name, path)
        log_metrics(records.read(path))
        for file in left:
            log.info("  left behind: %s", file.resolve())
        return
    facts = JobContext(cfg, measured, protocol, registry)
    with add_path_to_errors(figures):
        measurement = instantiate(node, **{fact: getattr(facts, fact)() for fact in asked})
        metrics = measurement.run(figures)
    if values := getattr(measurement, "per_image", {}):
        write_tensors(dict(values), figures / per_image.FILE)
    directions = getattr(measurement, "higher_is_better", {})
    subject = {role: label(found, cfg[role]) for role, found in measured.artifacts.items()}
    record = records.Record(
        id=identity,
        job=job.name,
        subject={"tokenizer": None, "generator": None, **subject, "data": data.name},
        metrics=metrics,
        protocol=described,
        artifacts={role: found.name for role, found in measured.artifacts.items()},
        config={key: value for key, value in registry.with_component_names(cfg).items() if key != "paths"},
        environment=records.environment(),
        created=records.now(),
        higher_is_better={name: better for name, better in directions.items() if name in metrics},
        settings=hashed_settings(job, registry.with_component_names(node)),
        models={role: found.model_digest for role, found in measured.artifacts.items()},
        seeds={role: found.seed for role, found in measured.artifacts.items()},
        weights={role: found.content_key for role, found in measured.artifacts.items()},
        components={role: found.component for role, found in measured.artifacts.items()},
    )
    on = (
        f" on {sum(map(len, protocol_splits(data, protocol)))} {SPLITS[protocol.split]} images"
        if "images" in asked
        else ""
    )
    log.info("Measured%s: %s", on, records.write(record, folder))
    log_metrics(record)
    if figures.is_dir():
        log.info("  left behind: %s", figures)
    send_record(cfg, record)


def record_identity(
    cfg: DictConfig,
    measured: EvaluationTarget,
    node: DictConfig,
    protocol_hash: str,
    features: str | None,
    registry: Registry = Registry(),
) -> str:
    """The id of the record of a job's measurement, which a rerun finds; `features` is the key of an extractor."""
    job = import_target(node._target_)
    return records.record_id(
        job=job.name,
        settings=with_teacher(hashed_settings(job, plain(node)), cfg, registry)
        | ({} if measured.generator is None else sampling_settings(cfg, registry)),
        artifacts={role: found.content_key for role, found in measured.artifacts.items()}
        | ({} if features is None else {"features": features}),
        data=measured.data.fingerprint,
        protocol=protocol_hash,
        revision=job.revision,
    )


def label(model: TrainedModel, node: DictConfig) -> str:
    """Returns the name of a model for people: its config's, or that of the artifact without its digest."""
    return model.name.removesuffix(f"-{model.digest[:8]}") if "path" in node else str(node.name)


def merge_overrides(node: DictConfig, protocol: Protocol) -> tuple[Protocol, DictConfig]:
    """Returns the protocol with the values that a job's yaml sets in its place, and the node without them.

    Raises ValueError for values that a protocol cannot have.
    """
    overrides = {key: value for key, value in plain(node).items() if key in PROTOCOLS and value is not None}
    node = copy.deepcopy(node)  # within its config still
    with flag_override(node, ["struct", "readonly"], [False, False]):
        for key in PROTOCOLS:
            node.pop(key, None)
    return replace(protocol, **overrides), node


def describe(
    cfg: DictConfig, data: ImageData, protocol: Protocol, asked: Sequence[str], registry: Registry
) -> dict[str, Any]:
    """The protocol as a record holds it: what of it counts for what a job asks for, with the hash.

    A sampler and a guidance that are the generator's own are recorded as "own", so that generators that are each
    sampled their own way can be ranked.
    Times are of the machine, which is named.
    """
    counting = set().union(*(PROTOCOL_FIELDS.get(fact, set()) for fact in asked))
    drawn = protocol_digests(protocol, counting, registry)
    if "sampler" in asked:
        own = registry.compose("run", [f"generator={cfg.generator.name}"])
        given = {key: registry.with_component_names(cfg[key]) for key in ("sampler", "guidance")}
        drawn |= {
            key: "own" if value == registry.with_component_names(own[key]) else value for key, value in given.items()
        }
    if "machine" in asked:
        drawn["machine"] = describe_machine(cfg)
    return protocol.described(data=data.fingerprint, counting=counting, **drawn)


def sampling_settings(cfg: DictConfig, registry: Registry) -> dict[str, Any]:
    """How samples are drawn: what their numbers depend on besides the artifacts."""
    settings = {key: registry.with_component_names(cfg[key]) for key in ("sampler", "guidance")}
    if "guide" in settings["guidance"]:
        settings["guidance"]["guide"] = store.content_key(hub.local(cfg.guidance.guide))
    revisions = {key: import_target(cfg[key]._target_).revision for key in ("sampler", "guidance")}
    return {**settings, "revisions": revisions, "sampling_seed": cfg.seed}


def protocol_digests(protocol: Protocol, counting: Collection[str], registry: Registry = Registry()) -> dict[str, Any]:
    """Returns the digests in a protocol's hash: of the extractor, the metrics and the reference file."""
    found: dict[str, Any] = {"metrics": {}}
    if "extractor" in counting and protocol.extractor is not None:
        found["extractor"] = component_digest("extractor", protocol.extractor, protocol, registry)
    for group, field in (("metric", "reconstruction"), ("distribution", "distribution")):
        for name in getattr(protocol, field) if field in counting else ():
            found["metrics"][name] = component_digest(group, name, protocol, registry)
    if "reference" in counting and protocol.reference_file is not None:
        found["reference"] = store.file_digest(protocol.reference_file)
    return found


def validate_job(node: DictConfig, protocol: Protocol, registry: Registry = Registry()) -> None:
    """Raises ValueError for a node that is no job, for keys and values that the job does not take, unknown inputs."""
    _, node = merge_overrides(node, protocol)
    validate_types(node)
    job = import_target(node._target_)
    for attribute in ("name", "revision", "requires", "settings", "check", "output_files"):
        if not hasattr(job, attribute):
            raise ValueError(
                f"{node._target_} is no job: it has no {attribute}. ldbench.jobs.probe.Probe is one to look at."
            )
    parameters = inspect.signature(job).parameters
    for key in node:
        if not str(key).startswith("_") and key not in parameters:
            raise ValueError(
                "There is no config key "
                f"{node._get_full_key(key)}.{did_you_mean(str(key), list(parameters.keys() - JOB_INPUTS))}"
            )
    known = ", ".join(sorted(JOB_INPUTS))
    for name in required_inputs(node):
        if name not in JOB_INPUTS | RECORD_INPUTS:
            raise ValueError(
                f"{node._target_} asks for {name}, which its yaml does not set. A job may ask for: {known}."
            )
    if node.get("teacher") is not None:
        registry.validate_option("teacher", node.teacher)
    job.check(plain(node))
    for value in plain(node).values():
        if isinstance(value, Mapping) and "_target_" in value:
            instantiate(value)  # so that it refuses before any work starts


def validate_protocol(protocol: Protocol, registry: Registry = Registry()) -> None:
    """Raises ValueError for unknown names, metrics on what the extractor does not provide, and an invalid reference."""
    for group, names in (("metric", protocol.reconstruction), ("distribution", protocol.distribution)):
        for name in names:
            registry.validate_option(group, name)
    if protocol.reference_file is not None:
        adm_npz.num_images(protocol.reference_file)
    if protocol.extractor is None:
        return
    extractor = import_target(registry.option("extractor", protocol.extractor)._target_)
    if protocol.reference_file is not None:
        adm_npz.read_standard_statistics(
            protocol.reference_file, protocol.extractor, standard=getattr(extractor, "standard", True)
        )
    provides = extractor.provides
    for name in protocol.distribution:
        requires = import_target(registry.option("distribution", name)._target_).requires
        missing = sorted({SOURCE[need] for need in requires if need in SOURCE} - provides)
        if missing:
            raise ValueError(
                f"protocol.distribution names {name}, which is of {missing[0]}: extractor={protocol.extractor} gives "
                f"{', '.join(sorted(provides))}. Leave {name} out, or choose another protocol.extractor."
            )


def validate_weights(jobs: Sequence[DictConfig], protocol: Protocol, registry: Registry = Registry()) -> None:
    """Raises ValueError for weights of a metric or an extractor that are missing, or of another network."""
    counting = {field for node in jobs for fact in required_inputs(node) for field in PROTOCOL_FIELDS.get(fact, ())}
    named = [("metric", name) for name in protocol.reconstruction if "reconstruction" in counting]
    named += [("extractor", protocol.extractor)] if protocol.extractor and "extractor" in counting else []
    for group, name in named:
        node = component_config(group, name, protocol, registry)
        getattr(import_target(node["_target_"]), "check", lambda: None)()
        file = weights_path(name, node)
        if file is not None:
            # once for all points of a sweep
            key = ("weights", json.dumps(node, sort_keys=True), file.stat().st_mtime_ns)
            cached(key, partial(validate_layout, name, node, file))


def validate_layout(name: str, node: Mapping[str, Any], file: Path) -> None:
    """Raises ValueError, naming the file, for weights that a component cannot be made of."""
    try:
        instantiate(node, **weights_checksum(name, node))
    except ValueError as error:
        raise ValueError(f"protocol.weights.{name}={file}: {error}") from error


def log_metrics(record: records.Record) -> None:
    """The figures of a record, in lines."""
    width = max(map(len, record.metrics), default=0)
    for name, estimate in record.metrics.items():
        interval = "" if estimate.low is None else f"  (95 % interval {estimate.low:.4g} to {estimate.high:.4g})"
        log.info("  %-*s  %.4g%s", width, name, estimate.value, interval)
