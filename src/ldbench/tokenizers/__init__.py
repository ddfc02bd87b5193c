"""Tokenizers: one plug-in, one file."""
