"""ComposedJob: the config of one measurement, composed from the arguments of a Python call."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from ldbench.config.components import import_target
from ldbench.config.compose import Registry
from ldbench.config.error_messages import did_you_mean
from ldbench.config.installed import with_folders
from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData, Job
from ldbench.pipeline.job_context import EvaluationTarget, requires
from ldbench.pipeline.measure import run_job
from ldbench.pipeline.pipeline import RunRequest, measure_each, parse_request, validate

OPTION = re.compile(r"(\w+)(?::(.+))?")  # of data: digits, folder:DIR
HIDDEN = ("_target_", "_partial_")


@dataclass(frozen=True)
class Place:
    """Where a measurement computes and what it leaves behind."""

    root: str | os.PathLike[str]  # of artifacts: feature networks and the features of real images
    record: str | os.PathLike[str] | None  # the folder of its record; None: none is written
    force: bool  # whether it repeats what has a record
    device: torch.device | str | None  # None: that of the module, else the best there is


@dataclass(frozen=True)
class ComposedJob:
    """A measurement's config, which is not changed, and whether its record is written."""

    cfg: DictConfig
    registry: Registry
    place: Place
    data: ImageData | None  # as it was given; None: the config's

    @property
    def job(self) -> str:
        """The name of the job."""
        return str(import_target(self.cfg.job._target_).name)

    @property
    def image_size(self) -> int | None:
        """The size of the data's images, where it does not depend on the tokenizer's."""
        size = OmegaConf.to_container(self.cfg.data, resolve=False).get("image_size")  # type: ignore[union-attr]
        return size if isinstance(size, int) else None

    def within(self, scratch: Path, *, device: torch.device | None, tokenizer: Mapping[str, Any] | None) -> DictConfig:
        """A copy of the config for one measurement: on a device, of a tokenizer, with what it does not keep in a
        scratch folder.
        """
        cfg = copy.deepcopy(self.cfg)
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            cfg.paths.root = str(self.place.root)
            cfg.paths.runs = str(scratch / "runs")
            cfg.paths.records = str(scratch / "records" if self.place.record is None else self.place.record)
            cfg.force = self.place.force
            if device is not None:
                cfg.trainer.accelerator = device.type
            if tokenizer is not None:
                cfg.tokenizer = dict(tokenizer)
                if self.place.record is None or self.job != "encode":  # nothing refers to them afterwards
                    cfg.paths.latents = str(scratch / "latents")
        return cfg

    def request(self, cfg: DictConfig) -> RunRequest:
        """What the config asks for. Raises ValueError for whatever is wrong in it and needs no data to be found."""
        request = parse_request(cfg, self.registry)
        validate(cfg, request, self.registry)
        return request

    def measured(
        self, cfg: DictConfig, target: EvaluationTarget, request: RunRequest, scratch: Path
    ) -> dict[str, Estimate]:
        """The metrics of the measurement, by the record where one is asked for."""
        if self.place.record is None:
            _, metrics = run_job(
                cfg, target.restricted_to_job(cfg.job), cfg.job, request.protocol, self.registry, out=scratch / "out"
            )
            return dict(metrics)
        (record,) = measure_each(cfg, target, [cfg.job], request.protocol, self.registry)
        return dict(record.metrics)


def compose_job(
    job: str,
    *,
    data: str | ImageData,
    protocol: str | Mapping[str, Any] | None,
    image_size: int | None,
    place: Place,
    overrides: Sequence[str],
    searchpath: Sequence[str],
    settings: Mapping[str, Any],
) -> ComposedJob:
    """The config of a job's measurement with its settings.

    `data`: an option of the config group, with a folder where it needs one (`folder:DIR`), or the images themselves.
    `protocol`: an option's name, or fields in the place of those of the data's protocol. `overrides`: any others, as
    on the command line. Raises ValueError for names, settings and fields that do not exist.
    """
    registry = Registry(with_folders(searchpath, overrides))
    registry.validate_option("job", job)
    given = data if not isinstance(data, str) else None
    name, folder = ("digits", None) if not isinstance(data, str) else split_option(data, registry)
    named = protocol if isinstance(protocol, str) else ("default" if given is not None else None)
    if isinstance(protocol, str):
        registry.validate_option("protocol", protocol)
    words = [f"job={job}", f"data={name}", *([f"protocol={named}"] if named else []), *overrides]
    cfg = registry.compose("run", words)
    if "protocol" not in cfg:  # data without one of their own
        cfg = registry.compose("run", [*words, "protocol=default"])
    if folder is not None:
        set_values(cfg, "data", {"root": folder})
    if given is not None:
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            cfg.data = {"name": given.name, "image_size": given.image_size}
    if image_size is not None:
        set_values(cfg, "data", {"image_size": image_size})
    if isinstance(protocol, Mapping):
        set_values(cfg, "protocol", protocol)
    set_values(cfg, "job", settings, job=job)
    if place.record is None and "save_images" in cfg.job and "save_images" not in settings:
        set_values(cfg, "job", {"save_images": False})  # nobody would see them
    return ComposedJob(cfg, registry.with_data(cfg), place, given)


def split_option(data: str, registry: Registry) -> tuple[str, str | None]:
    """The name and the folder of `digits` or `folder:DIR`. Raises ValueError for data that do not exist."""
    found = OPTION.fullmatch(data)
    if found is None:
        known = ", ".join(sorted(registry.options("data")))
        raise ValueError(f"data={data!r} names no data. Choose one of {known}, or folder:DIR for your images.")
    registry.validate_option("data", found[1])
    option = registry.option("data", found[1])
    if found[2] is None and "root" in option.keys() and OmegaConf.is_missing(option, "root"):  # noqa: SIM118, also without a value
        raise ValueError(f"data={data!r} needs a folder of images: say data='{data}:DIR'.")
    if found[2] is not None and "root" not in option.keys():  # noqa: SIM118
        raise ValueError(f"data={data!r}: {found[1]} takes no folder. Say data={found[1]!r}, or 'folder:{found[2]}'.")
    return found[1], found[2]


def set_values(cfg: DictConfig, section: str, values: Mapping[str, Any], *, job: str | None = None) -> None:
    """Sets keys of a section. Raises ValueError for those that it does not have, and for what yaml cannot hold."""
    known = [str(key) for key in cfg[section] if key not in HIDDEN]
    for key, value in values.items():
        if key not in known:
            what = f"job {job} has no setting {key}" if job else f"{section} has no {key}"
            raise ValueError(f"{what}.{did_you_mean(key, known)} It has: {', '.join(known)}.")
        try:
            with flag_override(cfg, ["struct", "readonly"], [False, False]):
                OmegaConf.update(cfg, f"{section}.{key}", as_plain(value), merge=isinstance(value, Mapping))
        except OmegaConfBaseException as error:
            raise ValueError(
                f"{section}.{key} must be a number, a string, true or false, None, or a list or mapping of these, got "
                f"a {type(value).__name__}."
            ) from error


def as_plain(value: Any) -> Any:
    """A value as yaml holds it: paths as strings, tuples as lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: as_plain(inner) for key, inner in value.items()}
    return [as_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def tokenizer_jobs(registry: Registry) -> list[str]:
    """The jobs that measure a tokenizer alone."""
    found = []
    for name, raw in registry.options("job").items():
        if "_target_" in raw and requires_tokenizer(import_target(raw["_target_"])):
            found.append(name)
    return sorted(found)


def requires_tokenizer(job: type[Job]) -> bool:
    """Whether a job starts from a tokenizer and needs nothing else."""
    return frozenset(job.requires) == {"tokenizer"}


def validate_tokenizer_job(composed: ComposedJob) -> None:
    """Raises ValueError for a job that does not measure a tokenizer alone."""
    if not requires(composed.cfg.job, "tokenizer") or requires(composed.cfg.job, "generator"):
        raise ValueError(
            f"job {composed.job} does not measure a tokenizer alone. Choose one of "
            f"{', '.join(tokenizer_jobs(composed.registry))}."
        )
