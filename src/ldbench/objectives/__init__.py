"""Objectives: the training losses of backbones, one file each."""
