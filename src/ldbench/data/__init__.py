"""Datasets of images: scikit-learn's digits, procedural scenes, folders.

Each implements `ldbench.core.interfaces.ImageData`.
"""
