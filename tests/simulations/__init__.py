"""Simulations of statistical claims; their figures stand in docs/statistics.md."""
