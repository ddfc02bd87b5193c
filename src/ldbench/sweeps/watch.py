"""Ends a process of a sweep when the sweep ends, however that happens."""

import os
import signal
import threading
import time

PARENT = "LDBENCH_SWEEP_PROCESS"  # environment variable with the process id of the sweep
NAME = "LDBENCH_SWEEP"  # environment variable with its name, by which loggers group its runs


def exit_with_sweep(pause: float = 1.0) -> None:
    """Makes this process end when the sweep that started it ends or is killed; does nothing without a sweep."""
    parent = os.environ.pop(PARENT, None)  # processes that this one starts have another parent
    if parent is not None:
        threading.Thread(target=watch, args=(int(parent), pause), daemon=True).start()


def watch(parent: int, pause: float) -> None:
    """Waits until this process is no longer the child of `parent`, then terminates its group, and kills it later."""
    while os.getppid() == parent:
        time.sleep(pause)
    for number, patience in ((signal.SIGTERM, 30.0), (signal.SIGKILL, 0.0)):
        os.killpg(os.getpgrp(), number)  # a sweep starts each process in its own group
        time.sleep(patience)
