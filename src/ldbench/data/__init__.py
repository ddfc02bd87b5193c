"""Datasets of images: scikit-learn's digits, procedural scenes, folders, public datasets, Hugging Face's, tar shards.

Each implements `ldbench.core.interfaces.ImageData`.
"""
