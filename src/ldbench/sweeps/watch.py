"""A process of a sweep ends with the sweep, however that ends."""

import os
import signal
import threading
import time

PARENT = "LDBENCH_SWEEP_PROCESS"  # the environment's word for the process id of the sweep
NAME = "LDBENCH_SWEEP"  # and for its name, by which loggers group its runs


def end_with_the_sweep(pause: float = 1.0) -> None:
    """Has this process end when the sweep that started it is gone, killed too; nothing where no sweep did."""
    told = os.environ.pop(PARENT, None)  # processes that this one starts have another parent
    if told is not None:
        threading.Thread(target=watch, args=(int(told), pause), daemon=True).start()


def watch(parent: int, pause: float) -> None:
    """Waits until this process is no more the child of that one, and ends it then, with those that it started; kills what does not heed that."""
    while os.getppid() == parent:
        time.sleep(pause)
    for message, patience in ((signal.SIGTERM, 30.0), (signal.SIGKILL, 0.0)):
        os.killpg(os.getpgrp(), message)  # a sweep starts each process in a group of its own
        time.sleep(patience)
