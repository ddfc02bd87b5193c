"""The interfaces of plug-ins and data, as structural types: a class with these methods satisfies them."""

from ldbench.core.interfaces.data import ImageData, ImageSet, LatentSet
from ldbench.core.interfaces.generators import (
    ChecksField,
    Guidance,
    Increments,
    Network,
    Objective,
    Sampler,
    TimeDistribution,
    TokenLoss,
)
from ldbench.core.interfaces.measurements import Budget, BudgetResult, Job
from ldbench.core.interfaces.tokenizers import (
    Adversary,
    Balanced,
    LossTerm,
    MapTeacher,
    NormalizesLatents,
    Predictor,
    Teacher,
    is_adversary,
)

__all__ = [
    "Adversary",
    "Balanced",
    "Budget",
    "BudgetResult",
    "ChecksField",
    "Guidance",
    "ImageData",
    "ImageSet",
    "Increments",
    "Job",
    "LatentSet",
    "LossTerm",
    "MapTeacher",
    "Network",
    "NormalizesLatents",
    "Objective",
    "Predictor",
    "Sampler",
    "Teacher",
    "TimeDistribution",
    "TokenLoss",
    "is_adversary",
]
