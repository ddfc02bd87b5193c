"""The words that every room uses: latents, posteriors, tokenizers and the protocols around them. torch and einops only."""
