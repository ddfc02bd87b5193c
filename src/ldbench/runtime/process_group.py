"""The ranks of a shared training, and decisions that rank 0 broadcasts to the others.

Rank 0 does everything that a command does; the other ranks take part in trainings only, and neither write files nor
measure. torchrun, srun or mpirun starts all of them; otherwise rank 0 starts the others of its machine (`launcher`).
All ranks run the same program and reach the same broadcasts, where rank 0 decides how it continues.
"""

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

Built = TypeVar("Built")

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
PATIENCE = 600.0  # seconds for the other ranks to start, unless trainer.patience says otherwise
FIRST_LINE, BETWEEN_LINES = 5.0, 30.0  # seconds without the others, after which a line says so
FAMILIES = {  # who starts processes -> environment variables of rank, number of processes, rank on the machine, machine
    "RANK and WORLD_SIZE are": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK"),
    "this is a step of srun, so ranks are": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID"),
    "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE are": (
        *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_NODE_RANK"),
    ),
    "PMI_RANK and PMI_SIZE are": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "PMI_NODE"),
}


_alone: ContextVar[bool] = ContextVar("alone", default=False)


@dataclass(frozen=True)
class ProcessInfo:
    """This process among all ranks of a shared training."""

    rank: int
    world: int
    local_rank: int  # on its machine
    node: int  # its machine


def process_info() -> ProcessInfo:
    """The rank of this process by the environment variables of torchrun (and `launcher`), srun or mpirun; without
    these, the only one. Raises ValueError for variables that are no ranks.
    """
    found = started_by()
    if found is None or _alone.get():
        return ProcessInfo(0, 1, 0, 0)
    rank, world, local_rank, node = (whole_number(key, optional=place > 1) for place, key in enumerate(FAMILIES[found]))
    if not 0 <= rank < world:
        names = FAMILIES[found][:2]
        raise ValueError(f"{names[0]}={rank} and {names[1]}={world} do not fit: ranks go from 0 to {world - 1}.")
    return ProcessInfo(rank, world, local_rank, node)


@contextmanager
def acting_alone() -> Iterator[None]:
    """Within it, this process is the only one, whatever started it: the ranks of another program do not meet here."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def started_by() -> str | None:
    """Whose environment variables make this process one of several; None for a process alone."""
    for name, (rank, world, *_) in FAMILIES.items():
        several = name.startswith("RANK") or os.environ.get(world, "1").strip() not in ("", "0", "1")
        if rank in os.environ and world in os.environ and several:
            return name
    return None


def whole_number(key: str, *, optional: bool) -> int:
    """An environment variable as a number, 0 for an optional one that is not set."""
    value = os.environ.get(key, "0") if optional else os.environ[key]
    if not value.strip().isdecimal():
        raise ValueError(f"The environment variable {key} must be a whole number, got {value!r}. Set it, or unset it.")
    return int(value)


def leader_address() -> tuple[str, int]:
    """Host and port of rank 0: MASTER_ADDR and MASTER_PORT, or the first host of a SLURM job
    and a port from the job's id. Raises ValueError where neither is set.
    """
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    host = host or (first_host(os.environ["SLURM_STEP_NODELIST"]) if "SLURM_STEP_NODELIST" in os.environ else None)
    if port is None and os.environ.get("SLURM_JOB_ID", "").isdecimal():
        port = str(15000 + int(os.environ["SLURM_JOB_ID"]) % 10000)
    missing = [name for name, value in (("MASTER_ADDR", host), ("MASTER_PORT", port)) if not value]
    if host is None or port is None or missing:
        own = process_info()
        raise ValueError(
            f"{started_by()} set, so this is process {own.rank} of {own.world}, and {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} not: where process 0 is cannot be known. Start all processes by "
            "torchrun, which sets all of them, or set the host and a free port of process 0 in each. For one process "
            "alone, unset the variables of ranks."
        )
    return host, whole_number("MASTER_PORT", optional=False) if "MASTER_PORT" in os.environ else int(port)


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

    def connect(self, patience: float = PATIENCE) -> None:
        """Connects this process with the other ranks; rank 0 publishes the values of its earlier broadcasts.

        Raises ConnectionError where rank 0 does not answer within `patience` seconds, and where its port is in use.
        """
        from torch.distributed import PrefixStore

        (host, port), own = leader_address(), process_info()
        hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun hosts a store for its processes
        store = self.open_store(host, port, is_server=own.rank == 0 and not hosted, patience=patience)
        self.store = PrefixStore(f"ldbench/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        for number, value in enumerate(self.values):
            self.store.set(f"value/{number}", str(int(value)))

    def open_store(self, host: str, port: int, *, is_server: bool, patience: float) -> Any:
        """The store of all ranks, in rank 0 or opened there."""
        from torch.distributed import TCPStore

        settings: dict[str, Any] = {"wait_for_workers": False, "multi_tenant": True}
        began, own = time.monotonic(), process_info()
        while True:
            left = patience - (time.monotonic() - began)
            try:
                timeout = timedelta(seconds=max(1.0, min(FIRST_LINE, left)))
                return TCPStore(host, port, None, is_server, timeout=timeout, **settings)
            except RuntimeError as error:
                if is_server:
                    raise ConnectionError(
                        f"Process 0 of {own.world} cannot listen at port {port} ({str(error).splitlines()[0]}). Set "
                        "MASTER_PORT to a free one, in every process."
                    ) from error
                if left <= FIRST_LINE:
                    raise ConnectionError(
                        f"Process 0 of {own.world} did not answer at {host}:{port} within {patience:.0f} s "
                        f"({started_by()} set). Start it, correct MASTER_ADDR and MASTER_PORT, or for one process "
                        "alone unset these variables. trainer.patience is this time in seconds."
                    ) from error
                log.warning("Process %d waits for process 0 at %s:%d (%s set).", own.rank, host, port, started_by())

    def meet(self, patience: float) -> None:
        """Waits until all ranks are there. Raises ConnectionError for those that do not come within `patience` seconds,
        in rank 0: the others lose the connection then.
        """
        (host, port), own = leader_address(), process_info()
        if self.store is None:
            self.connect(patience)
        self.store.set(f"here/{own.rank}", f"{socket.gethostname()}, rank {own.local_rank} on it")
        if own.rank:
            return
        began, next_line = time.monotonic(), FIRST_LINE
        while missing := [rank for rank in range(own.world) if not self.store.check([f"here/{rank}"])]:
            waited = time.monotonic() - began
            where = f"{len(missing)} of {own.world} processes at {host}:{port} ({started_by()} set)"
            if waited > patience:
                raise ConnectionError(
                    f"{where} did not come within {patience:.0f} s. Start ranks {', '.join(map(str, missing[:8]))}, or "
                    "for one process alone unset these variables. trainer.patience is this time in seconds."
                )
            if waited > next_line:
                log.warning("Waiting for %s.", where)
                next_line += BETWEEN_LINES
            time.sleep(POLL_SECONDS)
        places = [self.store.get(f"here/{rank}").decode() for rank in range(own.world)]
        if len(set(places)) < own.world:
            twice = next(place for place in places if places.count(place) > 1)
            log.warning(
                "Several processes have one place (%s), so that they would share a device: set LOCAL_RANK in each to "
                "its rank on its machine, as torchrun does.",
                twice,
            )

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
