"""Files: atomic writes, and reading that executes no code."""
