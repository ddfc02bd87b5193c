"""Loss terms: one named scalar each, outside the tokenizers, so that they vanish at export."""
