"""All stages of a plan, one after the other, under the one trainer."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ldbench.artifacts import weights
from ldbench.config.components import instantiate, parameter_names, validate_types
from ldbench.config.compose import plain
from ldbench.core.tokenizer import Tokenizer
from ldbench.io.safetensors_io import write_tensors
from ldbench.pipeline import feature_networks
from ldbench.pipeline.init_weights import resolve_init, start_tensors
from ldbench.pipeline.latent_statistics import set_statistics
from ldbench.pipeline.teachers import Teachers
from ldbench.pipeline.tokenizer_plan import Plan, stage_losses
from ldbench.results import figures
from ldbench.runtime.process_group import is_worker_rank
from ldbench.tracking.send_records import configured_loggers
from ldbench.training import fit
from ldbench.training.batch_sampler import RandomCrops
from ldbench.training.dry_run import dry_run as dry_run_stage
from ldbench.training.stage_config import Stage
from ldbench.training.tokenizer_module import TokenizerModule

log = logging.getLogger(__name__)


def init_tokenizer(planned: Plan) -> Tokenizer:
    """The tokenizer as it begins, at the size of the first stage: seeded, or with the weights of `init`.

    The encoder may start from other weights, under `tokenizer.encoder_init`.

    Raises ValueError for an artifact of another architecture.
    """
    start = resolve_init(planned.cfg, "tokenizer", planned.registry)
    given = start.load() if start else None
    torch.manual_seed(planned.cfg.tokenizer.seed)
    if start is None or given is None:
        tokenizer = instantiate(planned.cfg.tokenizer.model, image_size=planned.stages[0].image_size)
        init_encoder(planned, tokenizer)
        return tokenizer
    tokenizer = instantiate(planned.cfg.tokenizer.model, image_size=given.image_size)
    start.load_into(tokenizer, start_tensors(given))
    tokenizer.resize(planned.stages[0].image_size)
    return tokenizer


def init_encoder(planned: Plan, tokenizer: Tokenizer) -> None:
    """Sets the encoder's tensors to those under `tokenizer.encoder_init`, if any: a file's, or a feature network's."""
    source = plain(planned.cfg.tokenizer.get("encoder_init"))
    if source is None:
        return
    try:
        if isinstance(source, Mapping):
            network = feature_networks.get_network(source, planned.cfg, planned.registry)
            log.info("The encoder is the feature network %s.", source["name"])
            tokenizer.init_encoder(network.state_dict())
        else:
            log.info("The encoder starts from %s.", source)
            tokenizer.init_encoder(weights.read_weights(source))
    except ValueError as error:
        raise ValueError(f"tokenizer.encoder_init: {error}") from error


def build_losses(planned: Plan, tokenizer: Tokenizer, stage: Stage, teachers: Teachers) -> dict[str, Any]:
    """Builds the loss terms of a stage, seeded; each gets the run-time inputs that it asks for."""
    torch.manual_seed(planned.cfg.tokenizer.seed)
    facts = {
        "latent": tokenizer.latent,
        "patch_grid": tokenizer.patch_grid,
        "image_size": stage.image_size,
        "num_classes": planned.data.num_classes,
    }
    found = {}
    for name, node in stage_losses(planned.cfg, stage.losses).items():
        place = f"tokenizer.losses.{name}"
        validate_types(node, place)
        given = sorted(facts.keys() & node.keys())
        if given:
            raise ValueError(
                f"There is no config key {place}.{given[0]}: a term is told it by the tokenizer and the data."
            )
        asked = parameter_names(node["_target_"])
        keywords = teachers.placed(node)
        try:
            found[name] = instantiate(keywords, **{fact: value for fact, value in facts.items() if fact in asked})
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    if stage.max_steps and all(term.start > 0 for term in found.values()):
        raise ValueError(
            f"Stage {stage.name} has no loss term at its first step. Leave one of tokenizer.losses on, with start=0."
        )
    return found


def train_tokenizer(planned: Plan) -> Tokenizer:
    """Trains the tokenizer of a plan, after a dry run.

    Raises ValueError for a strategy that only generators support.
    """
    if planned.cfg.trainer.strategy == "fsdp":
        raise ValueError(
            "trainer.strategy=fsdp shards generators, and this tokenizer is not there yet. "
            "Train it first, by trainer.strategy=ddp and without "
            "a generator: no digest depends on the strategy."
        )
    teachers = Teachers(planned.cfg, planned.registry)
    dry_run(planned, teachers)
    return train_stages(planned, teachers)


def dry_run(planned: Plan, teachers: Teachers | None = None) -> None:
    """Runs two images through every stage and its losses, so that mistakes are found before the first step."""
    teachers = teachers or Teachers(planned.cfg, planned.registry)
    with torch.random.fork_rng(), torch.no_grad():
        tokenizer = init_tokenizer(planned)
        images, y = zip(*(planned.data.train[place] for place in (0, len(planned.data.train) - 1)), strict=True)
        for stage in planned.stages:
            tokenizer.resize(stage.image_size)
            if not stage.max_steps:
                continue
            try:
                module = build_module(planned, tokenizer, stage, teachers)
                dry_run_stage(module, torch.stack(images), torch.tensor(y))
            except ValueError as error:
                raise ValueError(f"Stage {stage.name} cannot train: {error}") from error


def build_module(planned: Plan, tokenizer: Tokenizer, stage: Stage, teachers: Teachers) -> TokenizerModule:
    """The Lightning module of one stage."""
    before = planned.stages[: list(planned.stages).index(stage)]
    return TokenizerModule(
        tokenizer=tokenizer,
        losses=build_losses(planned, tokenizer, stage, teachers),
        stage=stage,
        seed=planned.cfg.tokenizer.seed,
        label_safe_flips=planned.data.label_safe_flips,
        log_every=planned.cfg.trainer.log_every,
        first_step=sum(stage.max_steps for stage in before),
        folder=planned.run_folder,
        adaptive=planned.cfg.trainer.adaptive,
    )


def train_stages(planned: Plan, teachers: Teachers | None = None) -> Tokenizer:
    """Trains all stages that are not done yet, each from the last checkpoint there is.

    What loss terms have learned (auxiliary decoders, discriminators) is kept for the next stage that has the same term.
    """
    teachers = teachers or Teachers(planned.cfg, planned.registry)
    run = planned.run_folder
    run.mkdir(parents=True, exist_ok=True)
    tokenizer = init_tokenizer(planned)
    announce(planned)
    if planned.cfg.init is None or planned.cfg.get("init_partial"):  # else its weights bring them
        set_statistics(planned, tokenizer)
    learned: dict[str, Tensor] = {}  # by loss terms
    with fit.open_loggers(configured_loggers(planned.cfg), run=run, training=planned.training) as loggers:
        for stage in planned.stages:
            tokenizer.resize(stage.image_size)
            done = run / "stages" / f"{stage.name}.safetensors"
            terms = done.with_suffix(".losses.safetensors")
            if done.is_file():
                log.info("Stage %s is done already.", stage.name)
                tokenizer.load_state_dict(load_file(done))
                learned |= load_file(terms) if terms.is_file() else {}
            elif stage.max_steps:
                task = build_module(planned, tokenizer, stage, teachers)
                task.load_learned_terms(learned)
                tokenizer = fit_stage(planned, task, loggers)
                learned |= task.learned_terms()
                if not is_worker_rank():
                    keep_tensors(task.learned_terms(), terms)
                    keep_tensors(tokenizer.state_dict(), done)
    if not is_worker_rank():
        figures.learning_curves(sorted(run.glob("log/version_*/metrics.csv")), run / "learning_curves.png")
    return tokenizer.eval()


def fit_stage(planned: Plan, task: TokenizerModule, loggers: Sequence[Any]) -> Tokenizer:
    """Trains one stage and returns what it leaves behind, on the CPU."""
    settings, run, stage = planned.cfg.trainer, planned.run_folder, task.stage
    if stage.flip and not task.flip:
        log.info("Stage %s mirrors no images: in %s that may change the class.", stage.name, planned.data.name)
    if settings.compile:
        torch._functorch.config.donated_buffer = (
            False  # balanced terms pass backwards through a compiled tokenizer twice
        )
        task.tokenizer.compile()
    images: Any = planned.data.train
    crops = stage.crop_scale is not None and hasattr(images, "draw")
    if stage.crop_scale is not None:
        least, most = stage.crop_scale
        if crops:
            images = RandomCrops(images, kind=stage.crop, scale=(least, most), seed=planned.cfg.tokenizer.seed)
        else:
            log.info("Stage %s crops no images: %s has no larger originals.", stage.name, planned.data.name)
    callbacks = fit.build_callbacks(planned.cfg.callbacks, {"folder": run, "data": planned.data, "stage": stage.name})
    fit.fit_module(task, images, settings=settings, callbacks=callbacks, loggers=loggers, run=run, count_passes=crops)
    return task.result().cpu()


def keep_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Keeps what a stage ended in, in one move; nothing where there is nothing."""
    if not tensors:
        return
    write_tensors(tensors, path)


def announce(planned: Plan) -> None:
    """Says what is about to be trained, and where it goes."""
    steps = ", ".join(f"{stage.name} {stage.max_steps} steps at {stage.image_size} px" for stage in planned.stages)
    log.info("Training %s on %s (%d images): %s.", planned.name, planned.data.name, len(planned.data.train), steps)
    log.info("Pictures, logs and checkpoints: %s", planned.run_folder)
