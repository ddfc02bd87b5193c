"""Who is who among the processes that share trainings, and what the first of them tells the others.

The first process does all that a command does; the others follow: they take part in trainings, and neither write nor measure. Torchrun or srun
starts all of them; without these, the first starts the others of its machine (`companions`). All come to the same places of the program, where
the first says how it goes on.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

Made = TypeVar("Made")

PAUSE = 0.05  # seconds between looks for a word
PATIENCE = timedelta(minutes=10)  # for the others to be there at all


@dataclass(frozen=True)
class ProcessInfo:
    """This process among all that share trainings."""

    rank: int
    world: int
    local_rank: int  # on its machine
    node: int  # its machine


def process_info() -> ProcessInfo:
    """What the environment says: torchrun's words, which `companions` uses too, or srun's; where it says nothing, one of one."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        words = [os.environ.get(key, "0") for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")]
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        words = [os.environ[key] for key in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")]
    else:
        words = ["0", "1", "0", "0"]
    return ProcessInfo(*map(int, words))


def leader_address() -> tuple[str, int]:
    """Where the first process is found: as the environment says, or on the first machine of a SLURM job, at a port told by its number."""
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None:
        host = first_host(os.environ["SLURM_STEP_NODELIST"])
    return host, int(port) if port is not None else 15000 + int(os.environ["SLURM_JOB_ID"]) % 10000


def first_host(nodes: str) -> str:
    """The first name of a list of machines as SLURM writes it, such as `login,node[07-12,20]`."""
    host = re.split(r",(?![^\[]*\])", nodes)[0]  # at commas outside brackets
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", host)


def is_worker_rank() -> bool:
    """Whether another process is the first."""
    return process_info().rank > 0


def validate_world_size(devices: int, num_nodes: int) -> None:
    """Raises ValueError unless as many processes were started as the trainer's settings say, or this one can start the others."""
    started, wanted = process_info().world, devices * num_nodes
    if started == 1 and num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={num_nodes} needs all processes to be started, and this is one alone. Say, on every machine, "
            f"torchrun --nnodes={num_nodes} --nproc-per-node={devices} --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT -m ldbench.train ..., "
            f"or srun --nodes={num_nodes} --ntasks-per-node={devices} python -m ldbench.train ..."
        )
    if started not in (1, wanted):
        here = int(os.environ.get("LOCAL_WORLD_SIZE", started))
        raise ValueError(
            f"{started} processes were started, and trainer.devices={devices} times trainer.num_nodes={num_nodes} are {wanted}. "
            f"Say trainer.devices={here} trainer.num_nodes={started // here}, or start {wanted}."
        )


class LeaderBroadcast:
    """What the first process has said so far, one word at each place of the program where all meet."""

    def __init__(self) -> None:
        self.said: list[bool] = []
        self.store: Any = None

    def open(self) -> None:
        """Connects this process with the others, who read what was said before too."""
        from torch.distributed import PrefixStore, TCPStore

        (host, port), here = leader_address(), process_info()
        hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun keeps a store for its processes
        store = TCPStore(
            host, port, None, here.rank == 0 and not hosted, timeout=PATIENCE, wait_for_workers=False, multi_tenant=True
        )
        self.store = PrefixStore(f"ldbench/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        for number, word in enumerate(self.said):
            self.store.set(f"said/{number}", str(int(word)))

    def next(self, own: bool) -> bool:
        """What the first process says at this place, which is `own` in the first itself; goes on when all have heard it."""
        number, here = len(self.said), process_info()
        if self.store is None and here.world > 1:
            self.open()
        word = own
        if here.rank:
            self.wait(f"said/{number}")
            word = self.store.get(f"said/{number}") == b"1"
            self.store.set(f"heard/{number}/{here.rank}", "1")
        elif self.store is not None:
            self.store.set(f"said/{number}", str(int(own)))
            for rank in range(1, here.world):
                self.wait(f"heard/{number}/{rank}")
        self.said.append(word)
        return word

    def wait(self, key: str) -> None:
        """Waits for a key, for as long as it takes: hours, where the first process encodes. Raises ConnectionError when the first is gone."""
        try:
            while not self.store.check([key]):
                time.sleep(PAUSE)
        except RuntimeError as error:
            raise ConnectionError(
                f"Process {process_info().rank} lost the first one. The same command goes on from the last checkpoint."
            ) from error


@cache
def leader_broadcast() -> LeaderBroadcast:
    """Those of this process."""
    return LeaderBroadcast()


def broadcast_from_leader(own: bool) -> bool:
    """What the first process finds here, whatever this one does. All processes wait for each other."""
    return leader_broadcast().next(own)


def leader_first(make: Callable[[], Made]) -> Made:
    """What `make` gives: in the first process, and then, when what it stores is there, in the others."""
    made = None if is_worker_rank() else make()
    broadcast_from_leader(True)
    return make() if made is None else made
