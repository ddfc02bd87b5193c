"""How models are trained: the only Lightning modules."""
