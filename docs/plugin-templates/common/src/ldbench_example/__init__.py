"""A plug-in of ldbench; importing this imports nothing else."""
