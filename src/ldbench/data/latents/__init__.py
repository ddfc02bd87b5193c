"""The latent store: what an encoder says of every image of a split, in shards on a disk, for generators to learn from."""
