"""The latent store: the posteriors of all images of a split, in shards on disk, as the training set of a generator."""
