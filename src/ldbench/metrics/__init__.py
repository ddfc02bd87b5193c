"""How good images and latents are, as numbers."""
