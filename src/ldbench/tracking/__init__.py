"""Logging of trainings, records and leaderboards to Weights & Biases, and the configured logger."""
