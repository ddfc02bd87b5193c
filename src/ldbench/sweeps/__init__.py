"""Many configs by one command: checked together, what they share built once, each in a process of its own."""
