"""What a config would train, as others see it."""

import pytest

from ldbench.config.compose import Registry
from ldbench.pipeline.recipe import public_config


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("data.root", "/data/staged/images"),
        ("data.root", "../images"),
        ("data.root", "~/images"),
        ("data.root", r"C:\Users\me\images"),
        ("data.subset", "/home/me/images"),
        ("init", "/data/artifacts/images"),
        ("protocol.reference", "/data/images"),
        ("tokenizer.weights", "/data/images"),
    ],
)
def test_a_public_config_names_paths_by_their_last_part(key: str, folder: str) -> None:
    registry = Registry()
    cfg = registry.compose("train", ["data=folder", "tokenizer=vmae", "data.root=DIR", f"{key}='{folder}'"])
    found = public_config(cfg, registry)
    for part in key.split("."):
        found = found[part]
    assert found == "images"


def test_a_relative_path_is_named_by_its_last_part_if_it_exists(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    registry = Registry()
    cfg = registry.compose("train", ["data=folder", "data.root=mine/images", "init=hf://owner/name"])
    assert public_config(cfg, registry)["data"]["root"] == "images"
    assert public_config(cfg, registry)["init"] == "hf://owner/name"
    cfg.data.root = "."
    assert public_config(cfg, registry)["data"]["root"] == tmp_path.name


def test_ids_of_a_hub_keep_both_parts() -> None:
    registry = Registry()
    cfg = registry.compose("train", ["tokenizer=maetok", "+loss@tokenizer.losses.dino=dino"])
    weights = public_config(cfg, registry)["tokenizer"]["losses"]["dino"]["teacher"]["weights"]
    assert "/" in weights["source"]
    assert "paths" not in public_config(cfg, registry)
