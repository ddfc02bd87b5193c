"""The ranks of a shared training, and decisions that rank 0 broadcasts to the others.

Rank 0 does everything that a command does; the other ranks take part in trainings only, and neither write files nor
measure. torchrun or srun starts all of them; otherwise rank 0 starts the others of its machine (`launcher`). All ranks
run the same program and reach the same broadcasts, where rank 0 decides how it continues.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

Built = TypeVar("Built")

POLL_SECONDS = 0.05
CONNECT_TIMEOUT = timedelta(minutes=10)  # for the other ranks to start


@dataclass(frozen=True)
class ProcessInfo:
    """This process among all ranks of a shared training."""

    rank: int
    world: int
    local_rank: int  # on its machine
    node: int  # its machine


def process_info() -> ProcessInfo:
    """The rank of this process by the environment variables of torchrun (and `launcher`) or srun; without these,
    the only one.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        values = [os.environ.get(key, "0") for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")]
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        values = [os.environ[key] for key in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")]
    else:
        values = ["0", "1", "0", "0"]
    return ProcessInfo(*map(int, values))


def leader_address() -> tuple[str, int]:
    """Host and port of rank 0: MASTER_ADDR and MASTER_PORT, or the first host of a SLURM job
    and a port from the job's id.
    """
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None:
        host = first_host(os.environ["SLURM_STEP_NODELIST"])
    return host, int(port) if port is not None else 15000 + int(os.environ["SLURM_JOB_ID"]) % 10000


def first_host(nodes: str) -> str:
    """The first host in a SLURM node list, such as `login,node[07-12,20]`."""
    host = re.split(r",(?![^\[]*\])", nodes)[0]  # at commas outside brackets
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", host)


def is_worker_rank() -> bool:
    """Whether this process is not rank 0."""
    return process_info().rank > 0


def validate_world_size(devices: int, num_nodes: int) -> None:
    """Raises ValueError unless the number of processes matches the trainer's settings,
    or this process can start the others.
    """
    started, expected = process_info().world, devices * num_nodes
    if started == 1 and num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={num_nodes} needs all processes to be started, and this is the only one. "
            f"On every machine run torchrun --nnodes={num_nodes} --nproc-per-node={devices} --rdzv-backend=c10d "
            f"--rdzv-endpoint=HOST:PORT -m ldbench.train ..., "
            f"or srun --nodes={num_nodes} --ntasks-per-node={devices} python -m ldbench.train ..."
        )
    if started not in (1, expected):
        local = int(os.environ.get("LOCAL_WORLD_SIZE", started))
        raise ValueError(
            f"{started} processes were started, and trainer.devices={devices} times trainer.num_nodes={num_nodes} "
            f"are {expected}. Set trainer.devices={local} trainer.num_nodes={started // local}, or start {expected}."
        )


class LeaderBroadcast:
    """The sequence of booleans that rank 0 has broadcast;
    every rank calls `broadcast` at the same points of the program.
    """

    def __init__(self) -> None:
        self.values: list[bool] = []
        self.store: Any = None

    def connect(self) -> None:
        """Connects this process with the other ranks; rank 0 publishes the values of its earlier broadcasts."""
        from torch.distributed import PrefixStore, TCPStore

        (host, port), own = leader_address(), process_info()
        hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun hosts a store for its processes
        store = TCPStore(
            host,
            port,
            None,
            own.rank == 0 and not hosted,
            timeout=CONNECT_TIMEOUT,
            wait_for_workers=False,
            multi_tenant=True,
        )
        self.store = PrefixStore(f"ldbench/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        for number, value in enumerate(self.values):
            self.store.set(f"value/{number}", str(int(value)))

    def broadcast(self, own: bool) -> bool:
        """Rank 0's value at this point of the program, `own` in rank 0; returns when every rank has received it."""
        number, process = len(self.values), process_info()
        if self.store is None and process.world > 1:
            self.connect()
        value = own
        if process.rank:
            self.wait(f"value/{number}")
            value = self.store.get(f"value/{number}") == b"1"
            self.store.set(f"received/{number}/{process.rank}", "1")
        elif self.store is not None:
            self.store.set(f"value/{number}", str(int(own)))
            for rank in range(1, process.world):
                self.wait(f"received/{number}/{rank}")
        self.values.append(value)
        return value

    def wait(self, key: str) -> None:
        """Waits for a key without a limit: rank 0 may encode for hours. Raises ConnectionError when rank 0 is gone."""
        try:
            while not self.store.check([key]):
                time.sleep(POLL_SECONDS)
        except RuntimeError as error:
            raise ConnectionError(
                f"Process {process_info().rank} lost the connection to process 0. "
                "The same command resumes from the last checkpoint."
            ) from error


@cache
def leader_broadcast() -> LeaderBroadcast:
    """The broadcasts of this process."""
    return LeaderBroadcast()


def broadcast_from_leader(own: bool) -> bool:
    """Rank 0's value, whatever the value of this process is. All ranks wait for each other."""
    return leader_broadcast().broadcast(own)


def leader_first(build: Callable[[], Built]) -> Built:
    """Calls `build` in rank 0, and, when its stored results exist, in the other ranks."""
    built = None if is_worker_rank() else build()
    broadcast_from_leader(True)
    return build() if built is None else built
