"""Datasets of images: scikit-learn's digits, procedural scenes, folders, torchvision's datasets.

Each implements `ldbench.core.interfaces.ImageData`.
"""
