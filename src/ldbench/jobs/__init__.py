"""Measurements: each starts from artifacts and returns named estimates."""
