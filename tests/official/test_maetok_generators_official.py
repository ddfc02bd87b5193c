"""MAETok's official generators: transformers on a sequence, with and without a variance."""

import pytest
import torch

from ldbench.core.latent import LatentSpec


def test_a_sequence_is_read_off_the_tensors(transformer_state, convert_and_build):
    sit = convert_and_build("maetok_sit_b_1", transformer_state(sequence=True, outputs=3))
    assert sit.latent == LatentSpec(6, 3)
    assert (sit.null_class, sit.learned_variance) == (5, False)
    x, t, y = torch.randn(2, 6, 3), torch.tensor([0.1, 0.8]), torch.tensor([0, 5])
    assert sit(x, t, y).shape == x.shape
    dit = convert_and_build("maetok_dit_xl_1", transformer_state(sequence=True))
    assert dit.learned_variance
    assert dit(x, t, y).shape == (2, 6, 6)


def test_the_table_of_a_sequence_may_be_absent_and_must_be_the_fixed_one(transformer_state, convert_and_build):
    state = transformer_state(sequence=True, outputs=3)
    bare = {key: value for key, value in state.items() if key != "pos_embed"}
    assert convert_and_build("maetok_sit_b_1", bare).latent.num_tokens == 128
    assert convert_and_build("maetok_sit_b_1", bare, {"num_heads": 2, "input_size": 6}).latent.num_tokens == 6
    with pytest.raises(ValueError, match="pos_embed differs by"):
        convert_and_build("maetok_sit_b_1", state | {"pos_embed": state["pos_embed"].flip(-1)})


def test_a_transformer_on_a_map_is_refused(transformer_state, convert_and_build):
    with pytest.raises(ValueError, match=r"missing x_embedder\.bias.*unknown x_embedder\.proj"):
        convert_and_build("maetok_sit_b_1", transformer_state())


NAMES = ["maetok_sit_b_1", "maetok_sit_l_1", "maetok_sit_xl_1", "maetok_dit_xl_1"]


def test_every_size_imports(import_manifest):
    for name in NAMES:
        keywords = import_manifest(name, name)
        assert keywords["latent"] == {"num_tokens": 128, "channels": 32, "grid": None}, name
        assert keywords["learned_variance"] == (name == "maetok_dit_xl_1")
