"""Ranks by the environment variables of torchrun and srun, and the broadcasts of rank 0."""

import logging
import socket

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
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "PMI_RANK",
    "PMI_SIZE",
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
MPIRUN = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
KUBERNETES = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"}


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
        (MPIRUN, ProcessInfo(rank=1, world=2, local_rank=1, node=0)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, ProcessInfo(rank=3, world=4, local_rank=0, node=0)),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, ProcessInfo(0, 1, 0, 0)),
        (KUBERNETES, ProcessInfo(rank=1, world=2, local_rank=0, node=0)),
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


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, r"process 1 of 2, and MASTER_ADDR and MASTER_PORT are not.*torchrun"),
        ({**MPIRUN, "MASTER_ADDR": "n"}, r"OMPI_COMM_WORLD_SIZE are set, .* MASTER_PORT is not"),
        ({**KUBERNETES, "MASTER_PORT": "http"}, r"MASTER_PORT must be a whole number, got 'http'"),
        ({**KUBERNETES, "RANK": "2"}, r"RANK=2 and WORLD_SIZE=2 do not fit"),
        ({**KUBERNETES, "WORLD_SIZE": "two"}, r"WORLD_SIZE must be a whole number, got 'two'"),
    ],
)
def test_variables_that_do_not_fit_are_refused_with_what_to_set(set_environment, variables, message) -> None:
    set_environment(variables)
    with pytest.raises(ValueError, match=message):
        _ = process_info(), leader_address()


def test_a_peer_that_never_comes_is_named_and_ends_the_wait(set_environment, monkeypatch, caplog) -> None:
    monkeypatch.setattr(process_group, "FIRST_LINE", 0.1)
    port = free_port()
    set_environment({**KUBERNETES, "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    with caplog.at_level(logging.WARNING, logger="ldbench"), pytest.raises(ConnectionError) as ended:
        LeaderBroadcast().meet(0.5)
    waiting = f"1 of 2 processes at 127.0.0.1:{port} (RANK and WORLD_SIZE are set)"
    assert caplog.messages == [f"Waiting for {waiting}."]
    assert f"{waiting} did not come within 0 s. Start ranks 1, or" in str(ended.value)


def test_a_process_whose_first_one_never_answers_says_so(set_environment, monkeypatch, caplog) -> None:
    monkeypatch.setattr(process_group, "FIRST_LINE", 1.0)
    set_environment({**KUBERNETES, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())})
    with caplog.at_level(logging.WARNING, logger="ldbench"), pytest.raises(ConnectionError, match="did not answer at"):
        LeaderBroadcast().meet(2.5)
    assert "Process 1 waits for process 0 at 127.0.0.1" in caplog.messages[0]


def test_processes_meet_and_one_place_for_two_is_named(set_environment, caplog) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    set_environment({**shared, "RANK": "0"})
    leader, worker = LeaderBroadcast(), LeaderBroadcast()
    leader.connect()
    set_environment({**shared, "RANK": "1"})
    worker.meet(5.0)
    set_environment({**shared, "RANK": "0"})
    with caplog.at_level(logging.WARNING, logger="ldbench"):
        leader.meet(5.0)
    assert "set LOCAL_RANK in each to its rank on its machine" in caplog.text


def test_a_port_that_is_in_use_is_named(set_environment) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        set_environment({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
        with pytest.raises(ConnectionError, match=rf"Process 0 of 2 cannot listen at port {port}"):
            LeaderBroadcast().meet(1.0)
