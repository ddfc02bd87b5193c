"""Who is who among processes, as torchrun and srun tell it, and what the first says to the others."""

import pytest
from torch.distributed import TCPStore

from ldbench.runtime import process_group
from ldbench.runtime.launcher import free_port
from ldbench.runtime.process_group import (
    LeaderBroadcast,
    ProcessInfo,
    is_worker_rank,
    leader_address,
    process_info,
    validate_world_size,
)

TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TOLD += (
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_STEP_NODELIST",
    "SLURM_JOB_ID",
    "SLURM_NTASKS",
)
TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "n",
    "MASTER_PORT": "77",
}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "n[7-8]",
}
SRUN |= {"SLURM_JOB_ID": "123456"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch):
    """Sets the environment's words of processes; what was there before is gone."""

    def tell(words: dict[str, str]) -> None:
        for key in TOLD:
            monkeypatch.delenv(key, raising=False)
        for key, value in words.items():
            monkeypatch.setenv(key, value)

    tell({})
    return tell


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, ProcessInfo(rank=0, world=1, local_rank=0, node=0)),
        (TORCHRUN, ProcessInfo(rank=5, world=8, local_rank=1, node=1)),
        (SRUN, ProcessInfo(rank=3, world=4, local_rank=1, node=1)),
        (
            {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "9"},
            ProcessInfo(0, 1, 0, 0),
        ),  # the batch script itself, which srun did not start
    ],
)
def test_the_environment_tells_the_place(told, words, expected) -> None:
    told(words)
    assert process_info() == expected
    assert is_worker_rank() == (expected.rank > 0)


def test_the_first_process_is_found_where_the_environment_says(told) -> None:
    told(TORCHRUN)
    assert leader_address() == ("n", 77)
    told(SRUN)
    assert leader_address() == ("n7", 15000 + 3456)


def test_a_world_that_does_not_fit_is_refused_with_what_to_set(told) -> None:
    validate_world_size(1, 1)
    validate_world_size(8, 1)  # this process will start seven more
    with pytest.raises(
        ValueError, match=r"torchrun --nnodes=2 --nproc-per-node=8 .* srun --nodes=2 --ntasks-per-node=8"
    ):
        validate_world_size(8, 2)
    told(TORCHRUN)
    validate_world_size(4, 2)
    with pytest.raises(
        ValueError, match=r"8 processes were started.* are 1\. Say trainer\.devices=4 trainer\.num_nodes=2, or start 1"
    ):
        validate_world_size(1, 1)


def test_followers_hear_what_the_first_said_before_they_were_there_and_what_it_says_now(told) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first = LeaderBroadcast()
    assert first.next(True)
    assert not first.next(False)
    told({**shared, "RANK": "0"})
    first.open()
    told({**shared, "RANK": "1"})
    follower = LeaderBroadcast()
    assert follower.next(False), "whatever it finds itself"
    assert not follower.next(True)
    follower.store.set("heard/2/1", "1")  # as it will
    told({**shared, "RANK": "0"})
    assert not first.next(False)
    told({**shared, "RANK": "1"})
    assert not follower.next(True)


def test_a_follower_that_loses_the_first_says_so(told) -> None:
    told({"RANK": "1", "WORLD_SIZE": "2"})
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    words = LeaderBroadcast()
    words.store = TCPStore("127.0.0.1", store.port, None, False, wait_for_workers=False)
    del store
    with pytest.raises(ConnectionError, match=r"Process 1 lost the first one\. The same command goes on"):
        words.next(True)


def test_the_first_makes_before_others_look(told, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(process_group, "broadcast_from_leader", lambda own: done.append("met"))
    assert process_group.leader_first(lambda: done.append("made") or 7) == 7
    told({"RANK": "1", "WORLD_SIZE": "2"})
    assert process_group.leader_first(lambda: done.append("looked") or 7) == 7
    assert done == ["made", "met", "met", "looked"]
