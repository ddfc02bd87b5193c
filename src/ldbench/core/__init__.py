"""Domain types: latents, posteriors, tokenizers, generators and the protocols around them."""
