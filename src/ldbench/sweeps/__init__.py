"""Sweeps: many configs by one command, validated together, shared artifacts built once, a process for each config."""
