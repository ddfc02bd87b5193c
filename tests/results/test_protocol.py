"""Protocol: the hash keeps numbers of different protocols apart, and only those."""

from dataclasses import fields, replace

import pytest

from ldbench.results.protocol import Protocol

DEFAULT = Protocol(
    name="default",
    split="test",
    pixel_rule="round",
    latent="mean",
    seed=0,
    reconstruction=("psnr", "ssim"),
    extractor="digits",
    distribution=("fd", "kid"),
    ratio_extractors=(),
    num_samples=1000,
    labels="balanced",
    reference="train",
    kept=100,
    weights={"inception": None},
)
CHANGED = {
    "split": "train",
    "pixel_rule": "truncate",
    "latent": "sample",
    "seed": 1,
    "reconstruction": ("psnr",),
    "extractor": "inception",
    "distribution": ("fd",),
    "ratio_extractors": ("digits",),
    "num_samples": 50,
    "labels": (3, 7),
    "reference": "test",
    "kept": 200,
}


def hash_of(protocol: Protocol, data: str = "digits", extractor: str = "0123", counting: set[str] | None = None) -> str:
    return protocol.described(data=data, extractor=extractor, counting=counting)["hash"]


def test_the_name_is_not_hashed():
    assert hash_of(replace(DEFAULT, name="mine")) == hash_of(DEFAULT)
    assert replace(DEFAULT, name="mine").described(data="digits")["name"] == "mine"


def test_every_field_but_the_name_is_tried():
    assert set(CHANGED) == {field.name for field in fields(Protocol)} - {"name", "weights"}


@pytest.mark.parametrize("field", CHANGED)
def test_the_hash_changes_with_every_other_field(field):
    assert hash_of(replace(DEFAULT, **{field: CHANGED[field]})) != hash_of(DEFAULT)


def test_of_a_reference_file_the_content_counts_and_not_the_place():
    described = [
        replace(DEFAULT, reference=path).described(data="digits", reference=digest)
        for path, digest in (("a.npz", "1"), ("b.npz", "1"), ("a.npz", "2"))
    ]
    assert described[0] == described[1]
    assert len({one["hash"] for one in described} | {hash_of(DEFAULT)}) == 3


def test_a_reference_is_a_split_or_a_file():
    with pytest.raises(
        ValueError,
        match=r"protocol\.reference must be train, test or the path of an \.npz in ADM's layout, got 'heldout'",
    ):
        replace(DEFAULT, reference="heldout")


def test_the_hash_changes_with_the_reference_data():
    assert hash_of(DEFAULT, data="shapes") != hash_of(DEFAULT)
    assert DEFAULT.described(data="shapes")["data"] == "shapes"


def test_metrics_are_a_set_in_whatever_order_they_are_named():
    assert hash_of(replace(DEFAULT, reconstruction=["ssim", "psnr"])) == hash_of(DEFAULT)
    assert hash_of(replace(DEFAULT, distribution=["kid", "fd"])) == hash_of(DEFAULT)


def test_the_hash_changes_with_the_network_behind_the_extractor():
    assert hash_of(DEFAULT, extractor="0124") != hash_of(DEFAULT)
    assert DEFAULT.described(data="digits", extractor="0123")["extractor"] == {"name": "digits", "digest": "0123"}


@pytest.mark.parametrize("field", CHANGED)
def test_only_the_fields_that_count_for_a_measurement_change_its_hash(field):
    changed = replace(DEFAULT, **{field: CHANGED[field]})
    others = set(CHANGED) - {field}
    assert hash_of(changed, counting={field}) != hash_of(DEFAULT, counting={field})
    assert hash_of(changed, counting=others) == hash_of(DEFAULT, counting=others)
    assert set(changed.described(data="digits", counting={field}, extractor="0123")) == {"name", field, "data", "hash"}


def test_without_extractors_of_ratios_the_hash_is_that_from_before_there_were_any():
    assert "ratio_extractors" not in DEFAULT.described(data="digits", extractor="0123")
    here, there = (
        replace(DEFAULT, ratio_extractors=names).described(
            data="digits", ratio_extractors={name: f"{name}1" for name in names}
        )
        for names in (("a", "b"), ("b", "a"))
    )
    assert here["hash"] == there["hash"] != hash_of(DEFAULT)
    assert here["ratio_extractors"] == {"a": "a1", "b": "b1"}
    with pytest.raises(ValueError, match="names an extractor twice"):
        replace(DEFAULT, ratio_extractors=("a", "a"))


def test_weights_are_hashed_by_digest_and_not_by_path():
    given = {**vars(DEFAULT), "extractor": "inception"}
    here, there = (Protocol(**{**given, "weights": {"inception": path}}) for path in ("a.pth", "b.pth"))
    assert hash_of(here) == hash_of(there)
    assert "weights" not in here.described(data="digits", extractor="0123")
    sums = [here.described(data="digits", extractor="0123", weights={"lpips": digest}) for digest in ("01", "02")]
    assert sums[0]["weights"] == {"lpips": "01"}
    assert len({hash_of(here), *(described["hash"] for described in sums)}) == 3


def test_weights_of_what_the_protocol_does_not_ask_for_are_refused():
    with pytest.raises(
        ValueError, match=r"protocol\.weights\.inception has no effect: the protocol uses digits, psnr, ssim"
    ):
        replace(DEFAULT, weights={"inception": "a.pth"})


@pytest.mark.parametrize("kept", [1, "all", 2.5])
def test_a_reference_of_too_few_images_is_refused(kept):
    with pytest.raises(ValueError, match=r"protocol\.kept must be a whole number of images of at least 2"):
        replace(DEFAULT, kept=kept)


def test_distances_without_an_extractor_and_an_extractor_without_distances_are_refused():
    with pytest.raises(
        ValueError, match=r"protocol\.distribution=\['fd', 'kid'\] is measured on features\. Name their extractor"
    ):
        replace(DEFAULT, extractor=None)
    with pytest.raises(ValueError, match=r"protocol\.extractor=digits has no effect"):
        replace(DEFAULT, distribution=())


@pytest.mark.parametrize("field", ["reconstruction", "distribution"])
def test_a_name_in_place_of_a_list_is_refused(field):
    with pytest.raises(
        ValueError, match=rf"protocol\.{field} must be a list of names, got 'psnr'\. Set protocol\.{field}=\[psnr\]"
    ):
        replace(DEFAULT, **{field: "psnr"})


def test_the_hash_is_the_same_in_every_process():
    assert hash_of(DEFAULT) == "b7476cb8dfca4a48"


@pytest.mark.parametrize("field", ["split", "pixel_rule", "latent"])
def test_choices_that_do_not_exist_are_refused(field):
    with pytest.raises(ValueError, match=rf"protocol\.{field} must be one of [\w, ]+, got 'other'"):
        replace(DEFAULT, **{field: "other"})
