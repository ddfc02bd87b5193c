"""Analyses of latents: from tensors to numbers."""
