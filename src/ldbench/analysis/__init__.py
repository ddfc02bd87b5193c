"""Analyses of latents: arrays in, numbers out."""
