"""The config tree: how it is composed, and how the names in it become components."""
