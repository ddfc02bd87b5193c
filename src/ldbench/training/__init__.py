"""How models are trained: everything that stands on Lightning."""
