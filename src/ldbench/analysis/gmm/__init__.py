"""Gaussian mixtures of latents: expectation-maximisation, held-out likelihood, and curves over the number of components."""
