"""Files, here and at addresses: atomic writes, reading that executes no code, ranges with retries and a cache."""
