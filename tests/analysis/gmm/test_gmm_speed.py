"""Time and memory of expectation-maximization beside scikit-learn's, on the same points, start and iterations.

To see the numbers:

python -m pytest -q -n0 -s -m slow tests/analysis/gmm/test_gmm_speed.py

Each side runs in a process of its own, one after the other; memory is what its fits added at the peak. On two threads
the clock on the wall counts, which is meaningful on an idle machine only; on one thread processor time counts, which
other processes disturb little.
"""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys, time, warnings
import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from ldbench.analysis.gmm.em import fit
from ldbench.analysis.gmm.mixture import Mixture
from ldbench.analysis.gmm.points import PointsInMemory

side, kind = sys.argv[1:3]
threads, count, dim, num, iterations, repeats = map(int, sys.argv[3:])
torch.set_num_threads(threads)
clock = time.process_time if threads == 1 else time.perf_counter
warnings.simplefilter("ignore")
rng = torch.Generator().manual_seed(0)
centers = 1.5 * torch.randn(num, dim, generator=rng)
x = centers[torch.randint(num, (count,), generator=rng)] + 0.7 * torch.randn(count, dim, generator=rng)
x = (x - x.mean(dim=0)) / x.std(dim=0)
means = x[torch.randperm(count, generator=rng)[:num]].double()
eye = torch.eye(dim, dtype=torch.float64)
ones = {"diagonal": torch.ones_like(means), "full": eye.repeat(num, 1, 1)}[kind]  # their own inverse
start = Mixture(kind, torch.full((1, num), 1 / num, dtype=torch.float64), means[None], ones[None])
points, doubles = PointsInMemory(x), x.double().numpy()


def ours(steps):
    return fit(points, start, floor=1e-6, max_iter=steps, tolerance=0.0).log_likelihood.item()


def theirs(steps):
    settings = {"weights_init": np.full(num, 1 / num), "means_init": means.numpy(), "precisions_init": ones.numpy()}
    # any other init_params would run k-means first, whatever start is given
    settings |= {"init_params": "random_from_data", "covariance_type": {"diagonal": "diag", "full": "full"}[kind]}
    return GaussianMixture(num, max_iter=steps, tol=0, reg_covar=1e-6, **settings).fit(doubles).lower_bound_


def timed(steps):
    started = clock()
    found = run(steps)
    return clock() - started, found


run = {"ours": ours, "theirs": theirs}[side]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(1)
each = [(timed(1)[0], *timed(1 + iterations)) for _ in range(repeats)]
added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
# a long run less a short one is of steps alone: no start, no last E-step
seconds = (min(long for _, long, _ in each) - min(short for short, _, _ in each)) / iterations
print(json.dumps({"seconds": seconds, "megabytes": added, "log_likelihood": each[0][2]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_the_time_and_memory_of_an_iteration_beside_scikit_learn(kind: str, threads: int) -> None:
    count, dim, num, iterations, repeats = 50_000, 32, 100, 5, 3
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
    }
    found = {}
    for side in ("ours", "theirs"):
        settings = [side, kind, *map(str, (threads, count, dim, num, iterations, repeats))]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *settings], capture_output=True, text=True, check=True, env=environment
        )
        found[side] = json.loads(done.stdout)
    print(f"\n{kind}, {count:,} x {dim}, K = {num}, an iteration on {threads} threads")
    for side, name in (("ours", "ldbench, float32"), ("theirs", "scikit-learn, float64")):
        print(f"  {name:22s} {1000 * found[side]['seconds']:8.1f} ms {found[side]['megabytes']:8.0f} MB")
    print(f"  times as fast: {found['theirs']['seconds'] / found['ours']['seconds']:.1f}")
    assert found["ours"]["log_likelihood"] == pytest.approx(found["theirs"]["log_likelihood"], abs=1e-4)
