"""Data sets of images: scikit-learn's digits, procedural scenes, folders. Each meets `ldbench.core.interfaces.ImageData`."""
