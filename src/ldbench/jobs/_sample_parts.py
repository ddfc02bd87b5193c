"""Drawing the missing parts of a set of samples, in one process or several."""

import logging
from functools import partial

import torch

from ldbench.data.samples import SampleParts
from ldbench.jobs._sample_draws import SampleDraws
from ldbench.runtime.progress import progress
from ldbench.runtime.workers import run_parallel, split_evenly

log = logging.getLogger(__name__)


def draw_parts(draws: SampleDraws, parts: SampleParts, *, num_processes: int, device: torch.device) -> None:
    """Draws the parts that are not written yet."""
    missing, parts_total = parts.missing(), parts.ranges()
    if len(missing) < len(parts_total):
        log.info("Resuming: %d of %d parts are already drawn.", len(parts_total) - len(missing), len(parts_total))
    done = parts.num_samples - sum(map(len, missing))
    shares = split_evenly(missing, num_processes)
    work = partial(draws.draw, parts)
    with progress("sampling", total=parts.num_samples, done=done) as advance:
        if len(shares) == 1:
            work(missing, device=device, advance=advance)
        else:
            run_parallel(work, shares, device=device, advance=advance)
