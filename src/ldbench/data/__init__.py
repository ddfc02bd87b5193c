"""Datasets of images: scikit-learn's digits, procedural scenes, folders, Hugging Face datasets, tar shards.

Each implements `ldbench.core.interfaces.ImageData`.
"""
