"""A trial: a few steps of the configured training, which leave nothing behind, for the times of their phases."""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override

from ldbench.config.compose import Registry
from ldbench.core.interfaces import ImageData
from ldbench.pipeline import generator_training, tokenizer_training
from ldbench.pipeline.get_generator import plan_for
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.pipeline.trained_model import MeasuredModel

Times = dict[str, dict[str, float]]  # stage -> seconds of phases, and what else `StepTimes` writes


def time_tokenizer_steps(
    cfg: DictConfig, steps: int, batch_size: int | None = None, *, registry: Registry = Registry()
) -> Times:
    """Returns the times of a step of every stage of the tokenizer's recipe, with all loss terms active."""
    with tempfile.TemporaryDirectory() as folder:
        short = shortened(cfg, steps, folder, registry)
        for stage in short.tokenizer.stages.values():
            stage.batch_size = batch_size or stage.batch_size
        planned = plan_tokenizer(short, registry)
        tokenizer_training.train_stages(planned)
        return read(planned.run_folder)


def time_generator_steps(
    cfg: DictConfig,
    tokenizer: MeasuredModel,
    data: ImageData,
    steps: int,
    batch_size: int | None = None,
    *,
    registry: Registry = Registry(),
) -> Times:
    """The times of a step of the generator's training on the tokenizer's latents, in its own batches or others."""
    with tempfile.TemporaryDirectory() as folder:
        short = shortened(cfg, steps, folder, registry)
        short.generator.batch_size = batch_size or short.generator.batch_size
        planned = plan_for(short, tokenizer, data, registry)
        generator_training.fit_generator(planned, None)
        return read(planned.run_folder)


def shortened(cfg: DictConfig, steps: int, folder: str, registry: Registry) -> DictConfig:
    """Returns the config of a training of a few timed steps after a warm-up, which keeps nothing but times."""
    short = copy.deepcopy(cfg)
    OmegaConf.set_readonly(short, False)
    with flag_override(short, "struct", False):
        timed = registry.option("callbacks", "step_times").step_times
        timed.operations = True
        short.callbacks = {"step_times": timed}
        short.logger = None
        short.paths.runs = folder
        short.trainer.limit_steps = timed.warmup + steps
        for part in (short.tokenizer, *short.tokenizer.get("stages", {}).values()):
            at_once(part.get("losses") or {})
    return short


def at_once(node: Any) -> None:
    """Lets every loss term count from the first step, in full."""
    for key, value in node.items():
        if isinstance(value, DictConfig):
            at_once(value)
        elif key in ("start", "warmup") and value:
            node[key] = 0


def read(run: Path) -> Times:
    """What the training left."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((run / "step_times").glob("*.json"))
    }
