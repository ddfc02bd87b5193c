"""Loss terms: one named scalar each, outside the tokenizers, so that an exported artifact does not contain them."""
