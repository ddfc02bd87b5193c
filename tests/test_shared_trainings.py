"""Two processes that split each batch train like one: generators, tokenizers, masks, discriminators, up to rounding.

Both see the same images with the same draws, so that only the order of sums differs: 1e-6 of a tensor's norm after four
steps. With a discriminator it is 1e-4, because quotients of gradient norms and batch variances propagate that rounding
to every weight. Draws keyed by the process miss both by orders of magnitude. AdamW's eps is 1e-4 here: at 1e-8 it would
turn gradients that are only rounding errors into whole steps.
"""

import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from ldbench.results.figures import read_logs
from ldbench.runtime.launcher import free_port
from tests import shared_trainings
from tests.forking import Forked

pytestmark = pytest.mark.trains

EXACT = ("dit", "sit", "lightningdit", "maetok_sit", "dit_sharded", "lightningdit_sharded", "vmae", "maetok")
ROUNDING = {**dict.fromkeys(EXACT, 1e-6), "vavae": 1e-4}
SOME = ("sit", "lightningdit_sharded", "maetok", "vavae")  # where slow tests do not run


def train_all(roots: dict[int, Path], cases: Collection[str]) -> None:
    """Trains the cases in one process, and concurrently in two that split each batch."""
    alone = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environments = [
        (1, alone),
        *((2, alone | address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in (0, 1)),
    ]
    running = []
    for world, environment in environments:
        log = roots[world] / f"log{environment.get('RANK', '')}"
        running.append(Forked(partial(shared_trainings.main, roots[world], world, cases), log, environment))
    for process in running:
        assert process.wait(timeout=900) == 0, process.output()[-4000:]


@pytest.fixture(scope="module")
def rounding(thorough: bool) -> dict[str, float]:
    """The cases, and how far two processes may be from one."""
    return ROUNDING if thorough else {name: ROUNDING[name] for name in SOME}


@pytest.fixture(scope="module")
def kept(rounding: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The results of `one` process, and of the `first` and the `other` of two. Trained once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared_trainings"
    roots = {world: base / f"by{world}" for world in (1, 2)}
    with FileLock(f"{base}.lock"):
        if not base.exists():
            for root in roots.values():
                root.mkdir(parents=True)
            train_all(roots, list(rounding))
    files = {"one": roots[1] / "first.pt", "first": roots[2] / "first.pt", "other": roots[2] / "other.pt"}
    return {name: torch.load(path, weights_only=True) for name, path in files.items()}


def close(a: torch.Tensor, b: torch.Tensor, *, within: float) -> bool:
    return bool((a.double() - b.double()).norm() <= within * a.double().norm())


def test_two_processes_end_in_the_weights_of_one(kept, rounding) -> None:
    for name, within in rounding.items():
        one, two = kept["one"]["ended"][name], kept["first"]["ended"][name]
        assert one.keys() == two.keys(), name
        far = [key for key in one if not close(one[key], two[key], within=within)]
        assert not far, name


def test_two_processes_log_what_one_does_averaged_over_them(kept, rounding) -> None:
    for name, within in rounding.items():
        logs = [
            read_logs(sorted(Path(kept[who]["folders"][name]).glob("log/version_*/metrics.csv")))
            for who in ("one", "first")
        ]
        assert {"train/loss", "train/grad_norm"} <= logs[0].keys() == logs[1].keys(), name
        for figure, by_step in logs[0].items():
            assert logs[1][figure] == pytest.approx(by_step, rel=10 * within), f"{figure} of {name}"


def test_each_process_ends_in_the_same_bits(kept, rounding) -> None:
    for name in rounding:
        first, other = kept["first"]["ended"][name], kept["other"][name]
        assert all(torch.equal(value, first[key]) for key, value in other.items()), name


def test_batch_statistics_and_their_gradients_are_those_of_the_whole_batch(kept) -> None:
    one, first, other = (
        kept["one"]["ended"]["normalised"],
        kept["first"]["ended"]["normalised"],
        kept["other"]["normalised"],
    )
    for key, whole in one.items():
        two = torch.stack([first[key], other[key]], dim=1).flatten(0, 1) if key.startswith("rows") else first[key]
        torch.testing.assert_close(two, whole, rtol=1e-5, atol=1e-6, msg=key)
