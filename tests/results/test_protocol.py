"""Protocol: the hash keeps numbers of different protocols apart, and only those."""

from dataclasses import fields, replace

import pytest

from ldbench.results.protocol import Protocol

DEFAULT = Protocol(name="default", split="test", pixel_rule="round", latent="mean", seed=0, reconstruction=("psnr", "ssim"))
CHANGED = {"split": "train", "pixel_rule": "truncate", "latent": "sample", "seed": 1, "reconstruction": ("psnr",)}


def hash_of(protocol: Protocol, data: str = "digits") -> str:
    return protocol.described(data=data)["hash"]


def test_the_name_is_not_hashed():
    assert hash_of(replace(DEFAULT, name="mine")) == hash_of(DEFAULT)
    assert replace(DEFAULT, name="mine").described(data="digits")["name"] == "mine"


def test_every_field_but_the_name_is_tried():
    assert set(CHANGED) == {field.name for field in fields(Protocol)} - {"name"}


@pytest.mark.parametrize("field", CHANGED)
def test_the_hash_changes_with_every_other_field(field):
    assert hash_of(replace(DEFAULT, **{field: CHANGED[field]})) != hash_of(DEFAULT)


def test_the_hash_changes_with_the_reference_data():
    assert hash_of(DEFAULT, data="shapes") != hash_of(DEFAULT)
    assert DEFAULT.described(data="shapes")["data"] == "shapes"


def test_metrics_are_a_set_in_whatever_order_they_are_named():
    assert hash_of(replace(DEFAULT, reconstruction=["ssim", "psnr"])) == hash_of(DEFAULT)


def test_the_hash_is_the_same_in_every_process():
    assert hash_of(DEFAULT) == "d0999a325cc1d750"


@pytest.mark.parametrize("field", ["split", "pixel_rule", "latent"])
def test_choices_that_do_not_exist_are_refused(field):
    with pytest.raises(ValueError, match=rf"protocol\.{field} must be one of [\w, ]+, got 'other'"):
        replace(DEFAULT, **{field: "other"})
