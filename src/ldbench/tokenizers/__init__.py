"""Tokenizers: one file per plug-in."""
