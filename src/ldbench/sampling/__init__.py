"""Samplers: from noise to latents along a field, one family of methods in each file."""
