"""Plug-ins for ldbench; importing this imports nothing else."""
