"""The machine: devices, memory, worker processes, and the ranks of a shared training."""
