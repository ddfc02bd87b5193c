"""What is wrong with jobs and their protocol, found before any work: names, types, sizes, weights."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ldbench.config.components import import_target, instantiate, validate_types
from ldbench.config.compose import Registry, cached, plain
from ldbench.config.error_messages import did_you_mean
from ldbench.core.interfaces import ImageData
from ldbench.jobs._set_metrics import compares_splits, needs_heldout
from ldbench.metrics import adm_npz
from ldbench.metrics.feature_set import SOURCE
from ldbench.pipeline.components import build_metric, component_config, weights_checksum, weights_path
from ldbench.pipeline.job_context import (
    JOB_INPUTS,
    PROTOCOL_FIELDS,
    RECORD_INPUTS,
    protocol_splits,
    required_inputs,
)
from ldbench.pipeline.measure import merge_overrides
from ldbench.results.protocol import Protocol


def validate_job(node: DictConfig, protocol: Protocol, registry: Registry = Registry()) -> None:
    """Raises ValueError for a node that is no job, for keys and values that the job does not take, unknown inputs."""
    protocol, node = merge_overrides(node, protocol)
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
    for name in getattr(job, "set_metrics", ()):
        if name not in protocol.distribution:
            raise ValueError(
                f"Job {job.name} needs {name} among the protocol's metrics on sets, and protocol={protocol.name} has "
                f"{', '.join(protocol.distribution) or 'none'}. Set protocol.distribution=[{name}] and "
                "protocol.extractor, such as protocol.extractor=digits."
            )
    if node.get("teacher") is not None:
        registry.validate_option("teacher", node.teacher)
    try:
        job.check(plain(node))
        if hasattr(job, "check_protocol"):
            metrics = {
                name: import_target(registry.option("distribution", name)._target_) for name in protocol.distribution
            }
            job.check_protocol(plain(node), metrics, protocol.labels)
    except ValueError as error:  # a job does not know whether it is `job`, one of `jobs`, or `latents`
        raise ValueError(re.sub(r"\bjob\.(?=\w+)", node._get_full_key("").rstrip(".") + ".", str(error))) from error
    for value in plain(node).values():
        if isinstance(value, Mapping) and "_target_" in value:
            instantiate(value)  # so that it refuses before any work starts


def validate_protocol(protocol: Protocol, registry: Registry = Registry()) -> None:
    """Raises ValueError for unknown names, metrics on what the extractor does not provide, and an invalid reference."""
    for group, names in (
        ("metric", protocol.reconstruction),
        ("distribution", protocol.distribution),
        ("extractor", protocol.ratio_extractors),
    ):
        for name in names:
            registry.validate_option(group, name)
    file = protocol.reference_file
    if file is not None and not file.is_file():
        raise FileNotFoundError(
            f"protocol={protocol.name} compares samples with the file {file}, and there is none. Give its path: "
            "protocol.reference=PATH of an .npz, or protocol.reference=train."
        )
    if file is not None and adm_npz.has_images(file):
        adm_npz.num_images(file)
    elif file is not None:
        validate_statistics(protocol, file, registry)
    for name in (*protocol.ratio_extractors, *([protocol.extractor] if protocol.extractor else [])):
        if protocol.reference_file is not None:
            found = import_target(registry.option("extractor", name)._target_)
            adm_npz.read_statistics_of(found, protocol.reference_file, name)
    if protocol.extractor is None:
        return
    extractor = import_target(registry.option("extractor", protocol.extractor)._target_)
    provides = extractor.provides
    for name in protocol.distribution:
        requires = import_target(registry.option("distribution", name)._target_).requires
        missing = sorted({SOURCE[need] for need in requires if need in SOURCE} - provides)
        if missing:
            raise ValueError(
                f"protocol.distribution names {name}, which is of {missing[0]}: extractor={protocol.extractor} gives "
                f"{', '.join(sorted(provides))}. Leave {name} out, or choose another protocol.extractor."
            )


def validate_statistics(protocol: Protocol, file: Path, registry: Registry) -> None:
    """Raises ValueError for a reference without images that is none of statistics, and for metrics that need images."""
    found = adm_npz.read_statistics(file)
    if not found:
        raise ValueError(
            f"protocol.reference={file} holds neither images (arr_0) nor a mean and a covariance (mu, sigma). Give an "
            "ADM reference, or statistics of Inception-v3's features."
        )
    for name in protocol.distribution:
        metric = import_target(registry.option("distribution", name)._target_)
        if compares_splits(metric) or metric.requires <= {"logits", "labels"}:  # of samples, or of the data's splits
            continue
        missing = sorted(metric.requires - found.keys())
        if missing:
            others = [other for other in protocol.distribution if other != name]
            raise ValueError(
                f"protocol.reference={file} holds {' and '.join(found)} statistics and no images, and {name} needs "
                f"{', '.join(missing)} of its images. Leave it out: protocol.distribution=[{','.join(others)}]."
            )


def validate_image_sizes(
    jobs: Sequence[DictConfig], protocol: Protocol, image_size: int, registry: Registry = Registry()
) -> None:
    """Raises ValueError for metrics that images of this size are too small for, and for a reference of another size."""
    counting = {field for node in jobs for fact in required_inputs(node) for field in PROTOCOL_FIELDS.get(fact, ())}
    for name in protocol.reconstruction if "reconstruction" in counting else ():
        smallest = getattr(import_target(registry.option("metric", name)._target_), "smallest_image", 0)
        if image_size < smallest:
            raise ValueError(
                f"protocol.reconstruction names {name}, which is of images of {smallest} px or more, and these have "
                f"{image_size} px. Leave it out: protocol.reconstruction="
                f"[{','.join(other for other in protocol.reconstruction if other != name)}]."
            )
    file = protocol.reference_file
    if "reference" in counting and file is not None and adm_npz.has_images(file):
        height, width = adm_npz.image_size(file)
        if (height, width) != (image_size, image_size):
            raise ValueError(
                f"protocol.reference={file} holds images of {width} x {height} px, and samples have "
                f"{image_size} x {image_size} px: their distance would be that of the sizes. Give a reference of "
                f"{image_size} px, or protocol.reference=train."
            )


def validate_set_sizes(
    jobs: Sequence[DictConfig], data: ImageData, protocol: Protocol, registry: Registry = Registry()
) -> None:
    """Raises ValueError for metrics on sets of images that need larger sets than there are."""
    for job in jobs:
        own, node = merge_overrides(job, protocol)
        asked = set(required_inputs(node))
        if not asked & {"sets", "distances"} or own.extractor is None:
            continue
        paired = "reference" not in asked
        if paired:
            sizes = {"images": sum(map(len, protocol_splits(data, own)))}
        elif isinstance(own.labels, str):
            sizes = {"samples": own.num_samples, "reference images": reference_size(data, own)}
        else:  # samples of chosen classes are shown and not measured
            continue
        kind, size = min(sizes.items(), key=lambda item: item[1])
        for name in own.distribution:
            metric = build_metric("distribution", name, own, registry)
            if compares_splits(metric) or (paired and (needs_heldout(metric) or not getattr(metric, "of_pairs", True))):
                continue
            needed = getattr(metric, "smallest_set", 1)
            if size < needed:
                found = f"is 1 {kind.removesuffix('s')}" if size == 1 else f"are {size} {kind}"
                raise ValueError(
                    f"protocol.distribution names {name}, which needs sets of at least {needed} images, and there "
                    f"{found}. Give more, or leave it out: "
                    f"protocol.distribution=[{','.join(other for other in own.distribution if other != name)}]."
                )


def reference_size(data: ImageData, protocol: Protocol) -> int:
    """How many images samples are compared with; as many as there are samples, where a file does not say it."""
    file = protocol.reference_file
    if file is None:
        return len(getattr(data, protocol.reference))
    return adm_npz.num_images(file) if adm_npz.has_images(file) else protocol.num_samples


def validate_weights(jobs: Sequence[DictConfig], protocol: Protocol, registry: Registry = Registry()) -> None:
    """Raises ValueError for weights of a metric or an extractor that are missing, or of another network."""
    counting = {field for node in jobs for fact in required_inputs(node) for field in PROTOCOL_FIELDS.get(fact, ())}
    named = [("metric", name) for name in protocol.reconstruction if "reconstruction" in counting]
    named += [("extractor", protocol.extractor)] if protocol.extractor and "extractor" in counting else []
    named += [("extractor", name) for name in protocol.ratio_extractors if "ratio_extractors" in counting]
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
