"""Objectives: what a backbone learns of the way from noise to data, one file each."""
