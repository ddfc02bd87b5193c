"""Alias of `artifacts.weights`: yamls, recipes and artifacts name `ldbench.weights.read_weights`; digests cover it."""

from ldbench.artifacts.weights import read_weights

__all__ = ["read_weights"]
