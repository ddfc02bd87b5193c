"""A generator's training on latents: from a plan to the trained generator, and to its artifact."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ldbench.core.generator import Generator
from ldbench.core.pixels import sheet
from ldbench.data.latents.with_images import LatentsWithImages
from ldbench.io.files import read_json, write_json
from ldbench.pipeline.generator_plan import (
    GeneratorPlan,
    build_generator,
    build_guidance,
    build_normalizer,
    build_sampler,
)
from ldbench.pipeline.generator_stats import log_line
from ldbench.pipeline.init_weights import resolve_init, start_tensors
from ldbench.pipeline.token_losses import build_token_losses
from ldbench.pipeline.tokenizer_training import keep_tensors
from ldbench.results import figures
from ldbench.runtime.process_group import is_worker_rank
from ldbench.sampling.noise import NoiseStream
from ldbench.tracking.send_records import configured_loggers
from ldbench.training import fit
from ldbench.training.fsdp import unsharded
from ldbench.training.generator_module import GeneratorModule

log = logging.getLogger(__name__)

Decode = Callable[[Tensor], Tensor]  # raw latents (K, N, C) -> images (K, 3, H, W) in [-1, 1]


def train_generator(planned: GeneratorPlan, decode: Decode | None = None) -> Generator:
    """The trained generator of a plan, in eval mode on the CPU; from the last checkpoint, where there is one.

    `decode` turns samples into images for the pictures during training; without it they show latents.
    It changes no number.
    """
    course, run = planned.course, planned.run_folder
    note_tokenizer(planned)
    note_averages(planned)
    if not planned.weights_path(course.exported_decay).is_file():
        with fit.torch_threads(planned.cfg.trainer.threads):
            task = fit_generator(planned, decode)
        if not is_worker_rank():
            figures.learning_curves(sorted(run.glob("log/version_*/metrics.csv")), run / "learning_curves.png")
        others = [decay for decay in (*course.ema_decays, None) if decay != course.exported_decay]
        for decay in (*others, course.exported_decay):  # the exported one is the last: it says that all is done
            state = unsharded(task.averaged(decay).backbone.state_dict())
            if not is_worker_rank():
                keep_tensors(state, planned.weights_path(decay))
        if is_worker_rank():
            return task.exported().eval()
    return averaged(planned, course.exported_decay)


def note_tokenizer(planned: GeneratorPlan) -> None:
    """Keeps in the run which weights of the tokenizer it stands on. Raises ValueError for a run on others."""
    key, path = planned.latents.tokenizer_key, planned.run_folder / "tokenizer.json"
    if key is None or is_worker_rank():
        return
    if path.is_file() and (noted := read_json(path)["content_key"]) != key:
        raise ValueError(
            f"{planned.run_folder} is a training on latents of other weights of the tokenizer, with the content key "
            f"{noted[:16]}, and the one here has {key[:16]}. Bring that tokenizer here to go on, or remove the run."
        )
    if not path.is_file():
        write_json(path, {"content_key": key})


def note_averages(planned: GeneratorPlan) -> None:
    """Keeps in the run which averages it trains. Raises ValueError for a run that began with others."""
    course, run = planned.course, planned.run_folder
    if is_worker_rank():
        return
    path, decays = run / "averages.json", list(course.ema_decays)
    noted: list[float] | None = None
    if path.is_file():
        noted = read_json(path)["ema_decays"]
    elif any(run.glob("checkpoints/*")) or any(run.glob("weights/*")):  # of a version that knew no others
        noted = [] if course.exported_decay is None else [course.exported_decay]
    if noted is not None and noted != decays:
        raise ValueError(
            f"{run} is a training with the averages {noted}, and generator.ema_decays={decays}. Set "
            f"generator.ema_decays={noted} to go on with it, or remove the run."
        )
    write_json(path, {"ema_decays": decays})


def averaged(planned: GeneratorPlan, decay: float | None) -> Generator:
    """Returns the trained generator with the averaged weights of a decay, or the last weights (None).

    Raises ValueError for a decay that was not kept, or before the training has ended.
    """
    path = planned.weights_path(decay)
    if not path.is_file():
        raise ValueError(
            f"There is no {path}. Kept at the end of the training: "
            f"{list(planned.course.ema_decays)}, and None for the last weights."
        )
    generator = init_generator(planned)
    generator.backbone.load_state_dict(load_file(path))
    return generator.eval()


def init_generator(planned: GeneratorPlan) -> Generator:
    """The generator as it begins, with the statistics of the latents: seeded, or with the weights of an artifact.

    Raises ValueError for an artifact of another architecture.
    """
    latents = planned.latents
    torch.manual_seed(planned.cfg.seed)
    generator = build_generator(planned.cfg, latents.latent, latents.num_classes)
    generator.normaliser = build_normalizer(planned)
    start = resolve_init(planned.cfg, "generator", planned.registry)
    if start is not None:
        start.load_into(generator.backbone, start_tensors(start.load()))
    return generator


def fit_generator(planned: GeneratorPlan, decode: Decode | None) -> GeneratorModule:
    """The task of a plan at the end of its training."""
    cfg, run, latents = planned.cfg, planned.run_folder, planned.latents
    run.mkdir(parents=True, exist_ok=True)
    generator = init_generator(planned)
    losses = build_token_losses(cfg, generator.backbone, planned.registry)
    task = GeneratorModule(
        generator=generator,
        course=planned.course,
        seed=cfg.seed,
        log_every=cfg.trainer.log_every,
        folder=run,
        losses=losses,
    )
    log.info("Training %s on %d latents: %d steps.", planned.name, len(latents), planned.course.max_steps)
    log.info("%s", log_line(cfg, planned.stats))
    log.info("Pictures, logs and checkpoints: %s", run)
    if cfg.trainer.compile:
        generator.backbone.compile()
    facts = {
        "folder": run,
        "stage": planned.course.name,
        "sampler": build_sampler(cfg),
        "guidance": build_guidance(
            cfg, generator, planned.registry, tokenizer_key=latents.tokenizer_key, has_statistics=True
        ),
        "noise_of": partial(NoiseStream, cfg.seed),
        "picture_of": figures.latents if decode is None else partial(decoded, decode),
    }
    items: Any = latents
    if losses:
        assert planned.images is not None, "a plan of a cell has its images"
        items = LatentsWithImages(latents, planned.images)
    if not planned.course.max_steps:
        return task
    with fit.open_loggers(configured_loggers(cfg), run=run, training=planned.training) as loggers:
        fit.fit_module(
            task,
            items,
            settings=cfg.trainer,
            callbacks=fit.build_callbacks(cfg.callbacks, facts),
            loggers=loggers,
            run=run,
            count_passes=True,
            collate=whole,
            resident=items.resident if cfg.trainer.resident else None,
            ahead=items.ahead,
        )
    return task


def whole(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A batch that is one already."""
    return batch


@torch.no_grad()
def decoded(
    decode: Decode,
    z: Tensor,  # (K, N, C)
) -> Tensor:  # (3, H, W) uint8
    """Images of latents in one picture, eight in a row."""
    return sheet(list(decode(z).float().cpu().split(8)))
