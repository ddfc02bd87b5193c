"""An alias: yamls, recipes and stored artifacts name `ldbench.weights.read_weights`, and digests cover that name."""

from ldbench.artifacts.weights import read_weights

__all__ = ["read_weights"]
