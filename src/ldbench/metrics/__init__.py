"""Metrics of images and of sets of images, and the feature extractors that they need."""
