"""Stored models: artifact folders, weights files from outside, and the Hugging Face hub."""
