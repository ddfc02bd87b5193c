"""Gaussian mixtures of latents: expectation-maximization, held-out likelihood, and curves over the number of
components.
"""
