"""Latents that are awaited: what a reading process gets of them."""

import pickle

import torch

from ldbench.data.latents.awaited import AwaitedLatents


def test_another_process_gets_the_stored_latents_and_not_how_they_are_made(store):
    made = []
    finished = store()

    def make():
        made.append(finished)
        return finished

    awaited = AwaitedLatents(finished.manifest.contents, latent=finished.manifest.latent, seed=0, make=make)
    assert not made, "nothing is encoded before numbers are read"
    there = pickle.loads(pickle.dumps(awaited))  # as a worker that is spawned gets it
    assert len(there) == len(awaited) == 50
    for ours, theirs in zip(awaited.__getitems__([0, 3]), there.__getitems__([0, 3]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert len(made) == 1
