"""Where trainings, records and leaderboards are logged: Weights & Biases, and the loggers of trainings."""
