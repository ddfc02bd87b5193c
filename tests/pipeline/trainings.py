"""Trainings by hand: what they end in, and what they logged."""

import torch
from omegaconf import DictConfig

from ldbench.pipeline import tokenizer_training
from ldbench.pipeline.tokenizer_plan import Plan, plan_tokenizer
from ldbench.results.figures import read_logs


def trained(cfg: DictConfig) -> tuple[Plan, dict[str, torch.Tensor]]:
    """The plan of a config and the weights that its training ends in."""
    planned = plan_tokenizer(cfg)
    return planned, {key: value.clone() for key, value in tokenizer_training.train_stages(planned).state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def log_of(planned: Plan) -> dict[str, dict[int, float]]:
    return read_logs(sorted(planned.run_folder.glob("log/version_*/metrics.csv")))
