"""From a config to artifacts and records: what exists is reused, what is missing is built or measured."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from ldbench.artifacts.building import building_lock
from ldbench.config.components import import_target
from ldbench.config.compose import Registry, cli_overrides, plain
from ldbench.config.error_messages import did_you_mean
from ldbench.core.interfaces import ImageData
from ldbench.core.latent import LatentSpec
from ldbench.jobs._set_metrics import validate_kept
from ldbench.pipeline.config_schema import validate_values
from ldbench.pipeline.generator_plan import has_generator, validate_cell, validate_parts
from ldbench.pipeline.generator_stats import validate_stats
from ldbench.pipeline.get_generator import (
    build_encoder,
    get_generator,
    get_training_latents,
    validate_given,
)
from ldbench.pipeline.get_tokenizer import get_tokenizer
from ldbench.pipeline.init_weights import validate_init
from ldbench.pipeline.job_context import (
    EvaluationTarget,
    measures_generator,
    required_inputs,
    requires,
)
from ldbench.pipeline.measure import measure
from ldbench.pipeline.measure_records import compare, refuse_in_training
from ldbench.pipeline.measurement_checks import (
    validate_image_sizes,
    validate_job,
    validate_protocol,
    validate_set_sizes,
    validate_weights,
)
from ldbench.pipeline.recipe import is_trained
from ldbench.pipeline.tokenizer_plan import build_data, mark_output_folders, validate_keys, validate_names
from ldbench.pipeline.trained_model import MeasuredModel, TrainedModel
from ldbench.pipeline.trainer_settings import validate_trainer
from ldbench.pipeline.tuned_guidance import validate_search
from ldbench.results.protocol import Protocol
from ldbench.results.records import Record
from ldbench.runtime import launcher
from ldbench.runtime.cpu import validate_compiler
from ldbench.runtime.device import disable_tf32, find_device, validate_devices, validate_precision
from ldbench.runtime.memory import keep_freed_memory
from ldbench.runtime.process_group import is_worker_rank, leader_broadcast, process_info, validate_world_size
from ldbench.tracking.send_records import validate_logger


@dataclass(frozen=True)
class RunRequest:
    """What a config asks for: measurements under a protocol, of a cell, of a tokenizer, or of images alone."""

    jobs: Sequence[DictConfig]
    shared: Sequence[DictConfig]  # the jobs that all cells of one tokenizer share
    with_tokenizer: bool
    with_generator: bool
    protocol: Protocol


def train(cfg: DictConfig, registry: Registry = Registry()) -> Path:
    """Builds the configured tokenizer, and the generator of its latents where one is chosen, and measures them.

    Artifacts and records that exist are reused. Returns the folder of the generator's artifact, or the tokenizer's.
    Raises ValueError, before any work starts, for a config whose parts do not fit.
    """
    return build_and_measure(cfg, parse_request(cfg, registry), registry)


def run(cfg: DictConfig, registry: Registry = Registry()) -> Path:
    """Makes the configured measurement unless its record exists. Returns and raises as `train`.

    A job that starts from records builds no model; the folder of records is returned.
    """
    validate_values(cfg)
    validate_job(cfg.job, get_protocol(cfg, registry), registry)
    if requires(cfg.job, "records"):
        refuse_overrides(cfg.job, ("tokenizer", "generator"), "starts from the records under paths.root")
        return compare(cfg)
    request = parse_request(cfg, registry)
    if not request.with_tokenizer:
        # the image size may come from a tokenizer
        refuse_overrides(cfg.job, ("generator",), "measures images alone")
    return build_and_measure(cfg, request, registry)


def refuse_overrides(node: DictConfig, groups: Sequence[str], reason: str) -> None:
    """Raises ValueError for overrides on the command line that a job does not use."""
    for override in cli_overrides():
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if key.partition(".")[0] in groups:
            job = import_target(node._target_).name
            raise ValueError(f"{override} has no effect: job {job} {reason}. Leave it out.")


def parse_request(cfg: DictConfig, registry: Registry = Registry()) -> RunRequest:
    """Returns what a config asks for: its job in `run`; in `train` its jobs, without those that lack a generator.

    Raises ValueError for a job of a generator where none is chosen.
    """
    validate_values(cfg)
    protocol = get_protocol(cfg, registry)
    if "job" not in cfg:
        refuse_in_training(list(cfg.jobs.values()))
        chosen = has_generator(cfg)
        jobs = [node for node in cfg.jobs.values() if chosen or not requires(node, "generator")]
        shared = [node for node in jobs if not (chosen and measures_generator(node))]
        return RunRequest(jobs, shared, with_tokenizer=True, with_generator=chosen, protocol=protocol)
    validate_job(cfg.job, protocol, registry)
    needed = requires(cfg.job, "generator")
    if needed and not has_generator(cfg):
        raise ValueError(
            "This job needs a generator, and none is chosen. Set generator=sit, or another that --help lists."
        )
    taken = has_generator(cfg) and measures_generator(cfg.job)
    return RunRequest(
        [cfg.job], [], with_tokenizer=requires(cfg.job, "tokenizer"), with_generator=taken, protocol=protocol
    )


def validate(cfg: DictConfig, request: RunRequest, registry: Registry = Registry()) -> None:
    """Raises ValueError for whatever is wrong in a config and can be found without opening its data."""
    validate_keys(cfg)
    validate_names(cfg)
    validate_trainer(cfg)
    validate_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    validate_world_size(cfg.trainer.devices, cfg.trainer.num_nodes)
    validate_logger(cfg)
    for node in (*request.jobs, *([cfg.latents] if has_generator(cfg) else [])):
        validate_job(node, request.protocol, registry)
    for node in (*request.jobs, *([cfg.latents] if has_generator(cfg) else [])):
        if "precision" in node:
            validate_precision(node.precision, cfg.trainer.accelerator, key=node._get_full_key("precision"))
    validate_protocol(request.protocol, registry)
    validate_weights(request.jobs, request.protocol, registry)
    if isinstance(OmegaConf.select(cfg, "data.image_size", throw_on_missing=False), int):
        validate_image_sizes(request.jobs, request.protocol, cfg.data.image_size, registry)
    if has_generator(cfg):
        validate_given(cfg, registry)
        if is_trained(cfg.generator):
            validate_parts(cfg)
        if any("sampling_variants" in required_inputs(node) for node in request.jobs):
            validate_search(cfg, registry)
    if request.with_tokenizer:
        groups = groups_to_train(cfg, with_generator=request.with_generator)
        if groups:
            validate_precision(cfg.trainer.precision, cfg.trainer.accelerator)
            validate_compiler(compiles=cfg.trainer.compile, device=find_device(cfg.trainer.accelerator).type)
        validate_init(cfg, groups, registry)


def build_and_measure(cfg: DictConfig, request: RunRequest, registry: Registry = Registry()) -> Path:
    """Builds what is measured and makes the measurements that have no record yet.

    Returns the folder of the last artifact, or of the records where none is needed.
    """
    start(cfg, request, registry)
    folder = Path(cfg.paths.records)
    try:
        if request.with_tokenizer:
            tokenizer, data = tokenizer_for(cfg, request, registry)
            generator = get_generator(cfg, tokenizer, data, registry) if request.with_generator else None
            folder = (tokenizer if generator is None else generator).folder
            target = EvaluationTarget(data, tokenizer, generator)
        else:
            target = EvaluationTarget(build_data(cfg, registry))
        measure_each(cfg, target, request.jobs, request.protocol, registry)
    finally:
        mark_output_folders(cfg)
    return folder


def start(cfg: DictConfig, request: RunRequest, registry: Registry) -> None:
    """Validates a config, as `check` does, and prepares this process: threads, precision, memory."""
    launcher.exit_with_parent()
    if is_worker_rank():
        logging.getLogger("ldbench").setLevel(logging.WARNING)  # the leader logs what is done
    validate(cfg, request, registry)
    if process_info().world > 1:
        leader_broadcast().meet(cfg.trainer.patience)
    set_numerics(cfg)
    keep_freed_memory()


def set_numerics(cfg: DictConfig) -> None:
    """Sets what sums depend on in this process: the number of threads, and float32 without TF32."""
    torch.set_num_threads(cfg.trainer.threads)
    disable_tf32()


def prepare(cfg: DictConfig, registry: Registry = Registry()) -> Path:
    """Makes what the cells of a tokenizer share: the tokenizer, its measurements, and the latents that the cells read.

    Returns the folder of its artifact, and raises as `train`.
    """
    request = parse_request(cfg, registry)
    start(cfg, request, registry)
    tokenizer, data = tokenizer_for(cfg, request, registry)
    measure_each(cfg, EvaluationTarget(data, tokenizer), request.shared, request.protocol, registry)
    if is_worker_rank():
        return tokenizer.folder
    if request.with_generator and is_trained(cfg.generator):
        get_training_latents(cfg, tokenizer, data, registry)
    for split in latent_splits_read(request.jobs):
        build_encoder(cfg, tokenizer, data).store(split)
    return tokenizer.folder


def tokenizer_for(cfg: DictConfig, request: RunRequest, registry: Registry) -> tuple[TrainedModel, ImageData]:
    """Returns the configured tokenizer and its data; what will use its latents is validated before it is trained."""

    trains_on_it = request.with_generator and is_trained(cfg.generator)

    def check(latent: Callable[[], LatentSpec], data: ImageData) -> None:
        validate_sets(request, data, registry)
        if trains_on_it:  # the latent of a tokenizer that exists is known once its weights are read
            validate_cell(cfg, latent(), data.num_classes, registry)
        elif request.with_generator and cfg.generator.get("stats") is not None:
            validate_stats(cfg, latent().channels)

    tokenizer, data = get_tokenizer(cfg, registry, check=check)
    validate_half_precision(cfg, request, tokenizer)
    return tokenizer, data


def validate_sets(request: RunRequest, data: ImageData, registry: Registry = Registry()) -> None:
    """Raises ValueError for metrics on sets of images that these data are too few, or the stored features, for."""
    protocol = request.protocol
    nodes = {name: registry.option("distribution", name) for name in protocol.distribution}
    metrics = {name: import_target(node._target_) for name, node in nodes.items()}
    if any(measures_generator(node) for node in request.jobs):
        validate_kept(metrics, len(data.train), protocol.kept)
    validate_set_sizes(request.jobs, data, protocol, registry)


def validate_half_precision(cfg: DictConfig, request: RunRequest, tokenizer: MeasuredModel) -> None:
    """Raises ValueError for fp16 where a tokenizer's weights overflow in it."""
    nodes = [*request.jobs, *([cfg.latents] if has_generator(cfg) else [])]
    keys = [node._get_full_key("precision") for node in nodes if node.get("precision") == "fp16"]
    if keys and tokenizer.load_tokenizer().overflows_in_fp16:
        raise ValueError(
            f"{keys[0]}=fp16 overflows in {tokenizer.name}: its config.json has force_upcast. Set {keys[0]}=bf16 or "
            "fp32, or choose weights that are mended for it, such as tokenizer=sdxl_vae_fp16_fix."
        )


def measure_each(
    cfg: DictConfig,
    target: EvaluationTarget,
    jobs: Sequence[DictConfig],
    protocol: Protocol,
    registry: Registry,
) -> list[Record]:
    """Makes the measurements that have no record yet; of processes that share a training, the first one does.

    Returns the records, in this first one.
    """
    found: list[Record] = []
    for node in () if is_worker_rank() else jobs:
        restricted = target.restricted_to_job(node)
        # of two commands at once, one measures
        with building_lock(Path(cfg.paths.records) / restricted.name, doing="measuring"):
            found.append(measure(cfg, restricted, node, protocol, registry))
    return found


def latent_splits_read(jobs: Sequence[DictConfig]) -> list[str]:
    """Returns the splits whose latents these jobs read."""
    inputs = {name for node in jobs for name in required_inputs(node)}
    return [split for split, name in (("train", "train_latents"), ("test", "heldout_latents")) if name in inputs]


def groups_to_train(cfg: DictConfig, *, with_generator: bool) -> list[str]:
    """Returns which of tokenizer and generator would be trained: neither artifacts nor released weights."""
    return [
        kind for kind in ("tokenizer", "generator") if (kind == "tokenizer" or with_generator) and is_trained(cfg[kind])
    ]


def get_protocol(cfg: DictConfig, registry: Registry = Registry()) -> Protocol:
    """Returns the configured protocol; `default` for data that have none of their own."""
    node = cfg.protocol if "protocol" in cfg else registry.option("protocol", "default")
    known = [field.name for field in fields(Protocol)]
    for key in node.keys() - set(known):
        raise ValueError(f"There is no config key protocol.{key!s}.{did_you_mean(str(key), known)}")
    return Protocol(**plain(node))
