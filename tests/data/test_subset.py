"""Which training items are kept."""

import unicodedata

import pytest
import torch

from ldbench.data.draws import keyed_generator
from ldbench.data.subset import select_items, select_stratified

# seven large classes and one of three items
LABELS = torch.arange(1000).remainder(7).where(torch.arange(1000) < 997, 7)


def test_no_subset_keeps_everything():
    assert select_items(LABELS, subset=None, seed=0).tolist() == list(range(1000))
    assert select_items(LABELS, subset=1.0, seed=0).tolist() == list(range(1000))


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5])
def test_a_fraction_is_taken_of_each_class_and_leaves_none_empty(fraction):
    kept = select_items(LABELS, subset=fraction, seed=0)
    expected = [max(1, int(n * fraction + 0.5)) for n in LABELS.bincount().tolist()]
    assert LABELS[kept].bincount().tolist() == expected
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_the_seed_decides_the_fraction_and_smaller_ones_are_contained_in_larger_ones():
    kept = set(select_items(LABELS, subset=0.1, seed=0).tolist())
    assert kept == set(select_items(LABELS, subset=0.1, seed=0).tolist())
    assert kept != set(select_items(LABELS, subset=0.1, seed=1).tolist())
    assert kept < set(select_items(LABELS, subset=0.3, seed=0).tolist())


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = select_stratified(LABELS, 0.2, "key")
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(first, select_stratified(LABELS, 0.2, "key"))


def test_generators_of_different_keys_differ():
    draws = {
        torch.rand((), generator=keyed_generator("a", *key)).item()
        for key in [(0, 1), (1, 0), (0, 11), (0, 1, 1), (1,)]
    }
    assert len(draws) == 5


@pytest.mark.parametrize("fraction", [0, 0.0, -0.1, 1.5, 2, float("nan"), True])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"data\.subset is .* fraction in \(0, 1\]"):
        select_items(LABELS, subset=fraction, seed=0)


def test_a_list_file_holds_indices_or_names(tmp_path):
    items = tmp_path / "items.txt"
    items.write_text("2\n\n cat/a b.png \n0\n")
    assert select_items(
        LABELS[:4], subset=str(items), seed=0, names=["x.png", "cat/a b.png", "y.png", "z.png"]
    ).tolist() == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("1\n4\n", "Line 2 .*'4', which is not an item of the training split. Expected an index from 0 to 3"),
        ("-1\n", "Line 1 .*'-1'"),
        ("cat.png\n", "Line 1 .*'cat.png'"),
        ("1\n2\n1\n", "Lines 1 and 3 .* same item"),
    ],
)
def test_a_faulty_list_file_is_refused_with_its_line(tmp_path, text, message):
    items = tmp_path / "items.txt"
    items.write_text(text)
    with pytest.raises(ValueError, match=message):
        select_items(LABELS[:4], subset=str(items), seed=0)


def test_a_missing_list_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        select_items(LABELS, subset=str(tmp_path / "missing.txt"), seed=0)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_list_of_any_editor_is_read(tmp_path, form):
    path = tmp_path / "items.txt"
    names = [unicodedata.normalize("NFC", "café/0.png"), "b.png", "c.png"]
    path.write_bytes(b"\xef\xbb\xbf" + unicodedata.normalize(form, "café/0.png\r\nc.png\r\n").encode())
    assert select_items(torch.zeros(3), subset=str(path), seed=0, names=names).tolist() == [0, 2]
