"""SiT's official checkpoints: DiT's, without the outputs that nothing reads."""

import pytest
import torch


def test_the_second_half_of_the_outputs_is_dropped_and_the_first_is_dits(transformer_state, convert_and_build):
    state = transformer_state()
    sit, dit = convert_and_build("sit_s_2", state), convert_and_build("dit_s_2", state)
    assert not sit.learned_variance
    x, t, y = (
        torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(1)),
        torch.tensor([0.1, 0.8]),
        torch.tensor([0, 5]),
    )
    torch.testing.assert_close(sit(x, t, y), dit(x, t, y)[..., :3], rtol=1e-6, atol=1e-6)


def test_a_file_without_them_is_taken_as_it_is(transformer_state, convert_and_build):
    state = transformer_state(outputs=3)
    sit = convert_and_build("sit_s_2", state)
    assert torch.equal(sit.transformer.head.linear.weight, state["final_layer.linear.weight"])


def test_what_is_missing_is_named(transformer_state, convert_and_build):
    with pytest.raises(ValueError, match=r"no sit_s_2: missing .*willisma/SiT's checkpoint"):
        convert_and_build("sit_s_2", {"pos_embed": transformer_state()["pos_embed"]})


def test_every_size_imports(import_manifest, some):
    for size in some([f"{size}_{patch}" for size in ("s", "b", "l", "xl") for patch in (2, 4, 8)], 4):
        keywords = import_manifest(f"sit_{size}", f"dit_{size}_256")  # the same keys and shapes
        assert not keywords["learned_variance"], size
        assert keywords["patch_size"] == int(size[-1])


def test_a_file_trained_without_a_variance_imports_too(import_manifest):
    assert not import_manifest("sit_xl_2", "sit_xl_2_256_no_sigma")["learned_variance"]
