"""One measurement: from a job's yaml, a tokenizer and a protocol to a record, unless it is known."""

import copy
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, flag_override

from ldbench.artifacts import hub, store
from ldbench.config.components import import_target, instantiate
from ldbench.config.compose import Registry, plain
from ldbench.config.installed import packages_of
from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData, Job
from ldbench.core.measured_samples import MeasuredSamples
from ldbench.io.files import add_path_to_errors
from ldbench.io.safetensors_io import write_tensors
from ldbench.pipeline.components import (
    component_digest,
    extractor_key,
    with_teacher,
)
from ldbench.pipeline.job_context import (
    PROTOCOL_FIELDS,
    RATIO,
    EvaluationTarget,
    JobContext,
    describe_machine,
    protocol_splits,
    required_inputs,
    unneeded_inputs,
)
from ldbench.pipeline.recipe import public_config
from ldbench.pipeline.stored_records import hashed_settings
from ldbench.pipeline.trained_model import MeasuredModel
from ldbench.pipeline.tuned_guidance import tuned_guidance
from ldbench.results import per_image, records
from ldbench.results.protocol import Protocol
from ldbench.tracking.send_records import send_record

log = logging.getLogger(__name__)

SPLITS = {"test": "held-out", "train": "training", "all": "training and held-out"}
# keys of a job's yaml in which null stands for the protocol's, and anything else takes its place
PROTOCOLS = ("num_samples", "labels")


def measure(
    cfg: DictConfig, measured: EvaluationTarget, node: DictConfig, protocol: Protocol, registry: Registry = Registry()
) -> records.Record:
    """Makes a job's measurement under the protocol and writes the record, unless that was done before.

    Returns the record.
    """
    protocol, node = merge_overrides(node, protocol)
    job, asked = import_target(node._target_), required_inputs(node)
    data = measured.data
    settings = plain(node)
    samples = job.measured_samples(settings, data) if hasattr(job, "measured_samples") else None
    search = {key: settings[key] for key in getattr(job, "searched", ())}
    described = describe(cfg, data, protocol, asked, registry, samples, search)
    extractor = protocol.extractor if described.get("extractor") is not None else None
    features = None if extractor is None else extractor_key(extractor, cfg, protocol, registry)
    if "ratio_extractors" in described:
        keys = {name: extractor_key(name, cfg, protocol, registry) for name in protocol.ratio_extractors}
        features = store.digest({"features": features, "ratio_extractors": keys})
    identity = record_identity(cfg, measured, node, described["hash"], features, registry, samples)
    folder = Path(cfg.paths.records)
    path = records.path_of(folder, job.name, identity)
    figures = path.with_suffix("")  # in the folder beside the record
    left = [figures / file for file in job.output_files(settings)]
    if path.is_file() and all(file.exists() for file in left) and not cfg.force:
        log.info("Its job %s was measured already (force=true measures again): %s", job.name, path)
        known = records.read(path)
        log_metrics(known)
        for file in left:
            log.info("  pictures and tables: %s", file.resolve())
        return known
    measurement, metrics = run_job(cfg, measured, node, protocol, registry, out=figures)
    if values := getattr(measurement, "per_image", {}):
        write_tensors(dict(values), figures / per_image.FILE)
    directions = getattr(measurement, "higher_is_better", {})
    subject = {role: label(found, cfg[role]) for role, found in measured.artifacts.items()}
    given = {} if samples is None else {"samples": samples}
    record = records.Record(
        id=identity,
        job=job.name,
        subject={
            **{"tokenizer": None, "generator": None, **subject, "data": data.name},
            **{role: found.name for role, found in given.items()},
        },
        metrics=metrics,
        protocol=described,
        artifacts=by_role("name", measured) | {role: found.identity for role, found in given.items()},
        config=public_config(cfg, registry),
        environment=records.environment(plugin_packages(measured, node)),
        created=records.now(),
        higher_is_better={name: better for name, better in directions.items() if name in metrics},
        settings=hashed_settings(job, registry.with_component_names(node)),
        models=by_role("model_digest", measured) | {role: found.digest for role, found in given.items()},
        seeds=by_role("seed", measured) | dict.fromkeys(given),
        weights=by_role("content_key", measured) | {role: found.digest for role, found in given.items()},
        components=by_role("component", measured) | {role: role for role in given},
    )
    on = (
        f" on {sum(map(len, protocol_splits(data, protocol)))} {SPLITS[protocol.split]} images"
        if "images" in asked
        else ""
    )
    written = records.write(record, folder)
    if metrics:
        log.info("Measured%s: %s", on, written)
    else:
        log.info("There are no figures to measure, by the protocol and the job's settings: %s", written)
    log_metrics(record)
    if figures.is_dir():
        log.info("  pictures and tables: %s", figures)
    send_record(cfg, record)
    return record


def run_job(
    cfg: DictConfig,
    measured: EvaluationTarget,
    node: DictConfig,
    protocol: Protocol,
    registry: Registry = Registry(),
    *,
    out: Path,  # the folder of its figures
) -> tuple[Job, Mapping[str, Estimate]]:
    """A job, given what it asks for, and the metrics that it measures under the protocol. Writes no record."""
    protocol, node = merge_overrides(node, protocol)
    facts = JobContext(cfg, measured, protocol, registry)
    with add_path_to_errors(out):
        inputs = dict.fromkeys(unneeded_inputs(node)) | {fact: getattr(facts, fact)() for fact in required_inputs(node)}
        job = instantiate(node, **inputs)
        return job, job.run(out)


def by_role(fact: str, measured: EvaluationTarget) -> dict[str, Any]:
    """A fact of each model that is measured."""
    return {role: getattr(found, fact) for role, found in measured.artifacts.items()}


def plugin_packages(measured: EvaluationTarget, node: DictConfig) -> list[str]:
    """The packages of the plug-ins whose components made what is measured, or measure it."""
    used = {package for found in measured.artifacts.values() for package in found.recipe.get("plugins", ())}
    return sorted(used | set(packages_of(plain(node))))


def record_identity(
    cfg: DictConfig,
    measured: EvaluationTarget,
    node: DictConfig,
    protocol_hash: str,
    features: str | None,
    registry: Registry = Registry(),
    samples: MeasuredSamples | None = None,
) -> str:
    """The id of the record of a job's measurement, which a rerun finds; `features` is the key of an extractor."""
    job = import_target(node._target_)
    return records.record_id(
        job=job.name,
        settings=with_teacher(hashed_settings(job, plain(node)), cfg, registry)
        | ({} if measured.generator is None else sampling_settings(cfg, registry)),
        artifacts={role: found.content_key for role, found in measured.artifacts.items()}
        | ({} if features is None else {"features": features})
        | ({} if samples is None else {"samples": samples.digest}),
        data=measured.data.fingerprint,
        protocol=protocol_hash,
        revision=job.revision,
    )


def label(model: MeasuredModel, node: DictConfig) -> str:
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
    cfg: DictConfig,
    data: ImageData,
    protocol: Protocol,
    asked: Sequence[str],
    registry: Registry,
    samples: MeasuredSamples | None = None,
    search: Mapping[str, Any] = {},  # the settings of a search over sampling, which counts in place of its result
) -> dict[str, Any]:
    """The protocol as a record holds it: what of it counts for what a job asks for, with the hash.

    A sampler and a guidance that are the generator's own are recorded as "own", so that generators that are each
    sampled their own way can be ranked. Somebody's samples say their number and how their labels are chosen.
    Times are of the machine, which is named.
    """
    counting = set().union(*(PROTOCOL_FIELDS.get(fact, set()) for fact in asked))
    drawn = protocol_digests(protocol, counting, registry)
    if {"sampler", "sampling_variants"} & set(asked):
        own = registry.compose("run", [f"generator={cfg.generator.name}"])
        given = sampling_of(cfg, registry)
        drawn |= {
            key: "own" if value == registry.with_component_names(own[key]) else value for key, value in given.items()
        }
    if search:
        guided = registry.with_component_names(tuned_guidance(cfg, registry))
        fixed = {key: value for key, value in guided.items() if key not in ("scale", "low", "high", "guide")}
        drawn["guidance"] = {"tuned": {**fixed, **search}}
    if "machine" in asked:
        drawn["machine"] = describe_machine(cfg)
    if samples is not None:
        drawn |= samples.protocol
    return protocol.described(data=data.fingerprint, counting=counting, **drawn)


def sampling_settings(cfg: DictConfig, registry: Registry) -> dict[str, Any]:
    """How samples are drawn: what their numbers depend on besides the artifacts."""
    settings = sampling_of(cfg, registry)
    revisions = {key: import_target(cfg[key]._target_).revision for key in ("sampler", "guidance")}
    return {**settings, "revisions": revisions, "sampling_seed": cfg.seed}


def sampling_of(cfg: DictConfig, registry: Registry) -> dict[str, Any]:
    """The names and numbers of the sampler and the guidance, with the content key of a guide in place of its path."""
    settings = {key: registry.with_component_names(cfg[key]) for key in ("sampler", "guidance")}
    if "guide" in settings["guidance"]:
        settings["guidance"]["guide"] = store.content_key(hub.local(cfg.guidance.guide))
    return settings


def protocol_digests(protocol: Protocol, counting: Collection[str], registry: Registry = Registry()) -> dict[str, Any]:
    """Returns the digests in a protocol's hash: of the extractor, the metrics and the reference file."""
    found: dict[str, Any] = {"metrics": {}}
    if "extractor" in counting and protocol.extractor is not None:
        found["extractor"] = component_digest("extractor", protocol.extractor, protocol, registry)
    for group, field in (("metric", "reconstruction"), ("distribution", "distribution")):
        for name in getattr(protocol, field) if field in counting else ():
            found["metrics"][name] = component_digest(group, name, protocol, registry)
    if "ratio_extractors" in counting and protocol.ratio_extractors:
        metric = component_digest("distribution", RATIO, protocol, registry)
        found["ratio_extractors"] = {
            name: store.digest({"extractor": component_digest("extractor", name, protocol, registry), RATIO: metric})
            for name in protocol.ratio_extractors
        }
    if "reference" in counting and protocol.reference_file is not None:
        found["reference"] = store.file_digest(protocol.reference_file)
    return found


def log_metrics(record: records.Record) -> None:
    """The figures of a record, in lines."""
    width = max(map(len, record.metrics), default=0)
    for name, estimate in record.metrics.items():
        interval = "" if estimate.low is None else f"  (95 % interval {estimate.low:.4g} to {estimate.high:.4g})"
        log.info("  %-*s  %.4g%s", width, name, estimate.value, interval)
