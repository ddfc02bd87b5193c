"""Ranks by the environment variables of torchrun and srun, and the broadcasts of rank 0."""

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

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
VARIABLES += (
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
def set_environment(monkeypatch: pytest.MonkeyPatch):
    """Sets the environment variables of ranks, and removes the others."""

    def set_variables(variables: dict[str, str]) -> None:
        for key in VARIABLES:
            monkeypatch.delenv(key, raising=False)
        for key, value in variables.items():
            monkeypatch.setenv(key, value)

    set_variables({})
    return set_variables


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ProcessInfo(rank=0, world=1, local_rank=0, node=0)),
        (TORCHRUN, ProcessInfo(rank=5, world=8, local_rank=1, node=1)),
        (SRUN, ProcessInfo(rank=3, world=4, local_rank=1, node=1)),
        # the batch script itself, which srun did not start
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "9"}, ProcessInfo(0, 1, 0, 0)),
    ],
)
def test_the_rank_is_read_from_the_environment(set_environment, variables, expected) -> None:
    set_environment(variables)
    assert process_info() == expected
    assert is_worker_rank() == (expected.rank > 0)


def test_the_address_of_rank_0_is_read_from_the_environment(set_environment) -> None:
    set_environment(TORCHRUN)
    assert leader_address() == ("n", 77)
    set_environment(SRUN)
    assert leader_address() == ("n7", 15000 + 3456)


def test_a_world_size_that_does_not_match_is_refused_with_what_to_set(set_environment) -> None:
    validate_world_size(1, 1)
    validate_world_size(8, 1)  # this process will start seven more
    with pytest.raises(
        ValueError, match=r"torchrun --nnodes=2 --nproc-per-node=8 .* srun --nodes=2 --ntasks-per-node=8"
    ):
        validate_world_size(8, 2)
    set_environment(TORCHRUN)
    validate_world_size(4, 2)
    with pytest.raises(
        ValueError, match=r"8 processes were started.* are 1\. Set trainer\.devices=4 trainer\.num_nodes=2, or start 1"
    ):
        validate_world_size(1, 1)


def test_other_ranks_receive_earlier_and_later_broadcasts(set_environment) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    leader = LeaderBroadcast()
    assert leader.broadcast(True)
    assert not leader.broadcast(False)
    set_environment({**shared, "RANK": "0"})
    leader.connect()
    set_environment({**shared, "RANK": "1"})
    worker = LeaderBroadcast()
    assert worker.broadcast(False), "whatever its own value is"
    assert not worker.broadcast(True)
    worker.store.set("received/2/1", "1")  # as it will
    set_environment({**shared, "RANK": "0"})
    assert not leader.broadcast(False)
    set_environment({**shared, "RANK": "1"})
    assert not worker.broadcast(True)


def test_a_rank_that_loses_rank_0_reports_it(set_environment) -> None:
    set_environment({"RANK": "1", "WORLD_SIZE": "2"})
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    worker = LeaderBroadcast()
    worker.store = TCPStore("127.0.0.1", store.port, None, False, wait_for_workers=False)
    del store
    with pytest.raises(ConnectionError, match=r"Process 1 lost the connection to process 0\. The same command resumes"):
        worker.broadcast(True)


def test_rank_0_builds_before_the_other_ranks(set_environment, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(process_group, "broadcast_from_leader", lambda own: calls.append("broadcast"))
    assert process_group.leader_first(lambda: calls.append("built") or 7) == 7
    set_environment({"RANK": "1", "WORLD_SIZE": "2"})
    assert process_group.leader_first(lambda: calls.append("loaded") or 7) == 7
    assert calls == ["built", "broadcast", "broadcast", "loaded"]
