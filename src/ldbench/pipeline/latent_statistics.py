"""Statistics of training images by which some tokenizers normalize their latents, measured before the first step."""

import logging
import time
from typing import Any

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from ldbench.core.interfaces import NormalizesLatents
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.statistics import Statistics, combine
from ldbench.io.safetensors_io import write_tensors
from ldbench.pipeline.tokenizer_plan import Plan
from ldbench.runtime.device import disable_tf32, find_device
from ldbench.runtime.process_group import POLL_SECONDS, is_worker_rank
from ldbench.runtime.progress import progress

log = logging.getLogger(__name__)

FILE = "latent_statistics.safetensors"  # in the folder of the run
BATCH_SIZE = 64  # images; of no effect on the statistics but by rounding


def set_statistics(planned: Plan, tokenizer: Tokenizer) -> None:
    """Gives a tokenizer the statistics of its features over the training images, where it normalizes by them.

    They are measured once for a training, by the first process, and kept in the folder of its run.
    """
    if not isinstance(tokenizer, NormalizesLatents):
        return
    path = planned.run_folder / FILE
    if not path.is_file():
        if is_worker_rank():
            while not path.is_file():  # the first process measures them, at this place of the program
                time.sleep(POLL_SECONDS)
        else:
            write_tensors(measure(planned, tokenizer), path)
    found = load_file(path)
    tokenizer.set_statistics(found["mean"], found["std"])


@torch.no_grad()  # in inference mode, what moves to a GPU could not be trained afterwards
def measure(planned: Plan, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Mean and population deviation of each position and channel, (N, C) float32."""
    trainer, images = planned.cfg.trainer, planned.data.train
    device = find_device(trainer.accelerator)
    loader: DataLoader[Any] = DataLoader(images, batch_size=BATCH_SIZE, num_workers=trainer.workers)  # type: ignore[arg-type]
    log.info("Measuring the statistics of the latents of %d training images.", len(images))
    disable_tf32()
    training, parts = tokenizer.training, []
    tokenizer.to(device).eval()
    with progress("statistics", total=len(images), done=0) as advance:
        for batch, _ in loader:
            features = tokenizer.features(batch.to(device))
            parts.append(Statistics.of(features.reshape(len(batch), 1, 1, -1).cpu()))
            parts = [combine(parts)]
            advance(len(batch))
    tokenizer.cpu().train(training)
    shape = (tokenizer.latent.num_tokens, tokenizer.latent.channels)
    return {"mean": parts[0].mean.float().view(shape), "std": parts[0].std().float().view(shape)}
