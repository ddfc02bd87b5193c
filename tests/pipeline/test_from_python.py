"""`ldbench.measure`: the numbers of the command line, on any module, of which nothing is another afterwards."""

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from tests.pipeline.strangers import Flattened, Plain, seeded, tiny_images
from tests.tokenizers.diffusers_models import saved

import ldbench
from ldbench.pipeline import pipeline
from ldbench.pipeline.given_model import state_digest
from ldbench.results import records, validation
from ldbench.results.leaderboards import build_leaderboards

SMALL_SMOOTHNESS: dict[str, Any] = {
    **{"num_images": 4, "num_pairs": 1, "num_points": 3, "num_reference": 8, "num_jacobians": 1},
    **{"iterations": 2, "num_probes": 1, "levels": [0.0, 0.1]},
}
SMALL_GMM: dict[str, Any] = {"dim": 2, "min_variance": 0.0, "components": 2, "per_class": False, "restarts": 1}
CHEAP = {
    "reconstruct": {"batch_size": 8},
    "probe": {"num_train": 60, "neighbours": 3, "linear": False, "dimension": False},
    "smoothness": SMALL_SMOOTHNESS,
    "gmm": SMALL_GMM,
    "encode": {},
}


def by_command(root: Path, job: str, *words: str, **settings: Any) -> dict[str, Any]:
    """The metrics of `python -m ldbench.run`, from its record."""
    given = [f"job.{key}={str(value).replace(' ', '').lower()}" for key, value in settings.items()]
    cfg: DictConfig = ldbench.compose("run", [f"job={job}", *words, *given, f"paths.root={root}"])
    cfg.trainer.accelerator = "cpu"
    pipeline.run(cfg)
    (path,) = (root / "records").glob(f"{job}-*.json")
    return dict(records.read(path).metrics)


@pytest.mark.trains
@pytest.mark.parametrize("job", CHEAP)
def test_an_artifact_and_its_module_give_the_numbers_of_the_command_line_to_the_last_bit(
    job: str, already: Callable[..., Path], tmp_path: Path
) -> None:
    artifact = already()
    subset = ["data.subset=0.1"]
    expected = by_command(
        tmp_path / "elsewhere", job, "tokenizer=artifact", f"tokenizer.path={artifact}", "protocol=default", *subset,
        **CHEAP[job],
    )  # fmt: skip
    same: dict[str, Any] = {"protocol": "default", "overrides": subset, "device": "cpu", "root": tmp_path, **CHEAP[job]}
    before = sorted((tmp_path / "records").glob("*"))
    assert ldbench.measure(artifact, job, **same) == expected
    if job == "encode":
        assert ldbench.measure(artifact.name, job, **same) == expected
    assert ldbench.measure(ldbench.load(artifact), job, **same) == expected
    assert sorted((tmp_path / "records").glob("*")) == before, "none is asked for"


def test_a_folder_of_diffusers_and_the_instance_give_the_same_numbers(tmp_path: Path) -> None:
    model = saved("AutoencoderKL", tmp_path / "vae")
    words = ["tokenizer=diffusers", f"tokenizer.weights={tmp_path / 'vae'}", "tokenizer.image_size=32"]
    words += ["data.subset=0.1", "protocol=default"]
    expected = by_command(tmp_path, "reconstruct", *words, save_images=False)
    assert ldbench.measure(model, protocol="default", overrides=["data.subset=0.1"], root=tmp_path) == expected


@pytest.mark.parametrize("name", ["AutoencoderRAE", "AutoencoderKLQwenImage", "AutoencoderTiny"])
def test_an_autoencoder_of_diffusers_is_measured_by_the_conventions_of_its_class(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    model = saved(name, folder)
    tokenizer = ldbench.load_official("diffusers", folder)
    tokenizer.resize(32)
    of = [ldbench.measure(one, data=tiny_images(), root=tmp_path) for one in (model, tokenizer)]
    assert of[0] == of[1]
    assert of[0]["psnr"].value > 0


@pytest.mark.parametrize("job", ["reconstruct", "smoothness"])
def test_a_strangers_map_and_its_tokens_have_equal_numbers_and_those_of_its_own_calls(job: str, tmp_path: Path) -> None:
    data, settings = tiny_images(), {} if job == "reconstruct" else SMALL_SMOOTHNESS
    norm = torch.nn.BatchNorm2d if job == "reconstruct" else torch.nn.Identity
    of_map, of_tokens = (
        ldbench.measure(seeded(lambda kind=kind: kind(norm=norm)), job, data, root=tmp_path, **settings)  # type: ignore[misc]
        for kind in (Plain, Flattened)
    )
    assert of_tokens.keys() <= of_map.keys()  # without a grid there is no equivariance and no spectrum
    for name, estimate in of_tokens.items():
        assert estimate.value == pytest.approx(of_map[name].value, rel=1e-4), name
    if job == "reconstruct":
        module = seeded(Plain).eval()
        images = torch.stack([image for image, _ in data.test])
        with torch.no_grad():
            recon = module.decode(module.encode(images))
        originals, recon = ((127.5 * (x.double() + 1)).clamp(0, 255).round() / 255 for x in (images, recon))
        mse = (originals - recon).square().mean()
        assert of_map["mse"].value == pytest.approx(mse.item(), rel=1e-6)
        assert of_map["mse"].low < of_map["mse"].value < of_map["mse"].high


def everything(module: torch.nn.Module) -> list[Any]:
    """What a measurement could change."""
    return [
        state_digest(module.state_dict()),
        [part.training for part in module.modules()],
        [(id(p), p.requires_grad, p.device, p.grad) for p in module.parameters()],
        [id(b) for b in module.buffers()],
        [len(part._forward_hooks) for part in module.modules()],
        *(torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        *(torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()),
        *(torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()),
    ]


@pytest.mark.parametrize("job", CHEAP)
def test_module_and_process_are_as_before(job: str, tmp_path: Path) -> None:
    module = seeded(Plain)
    module.encoder[2].eval()
    module.decoder.bias.requires_grad_(False)
    torch.set_num_threads(2)
    before = everything(module)
    metrics = ldbench.measure(module, job, tiny_images(60), root=tmp_path, **CHEAP[job])  # type: ignore[arg-type]
    assert metrics
    assert everything(module) == before
    assert not list(tmp_path.iterdir()), "nothing is left of it"
    module.decode(module.encode(torch.rand(2, 3, 32, 32))).sum().backward()  # and it can be trained on


def test_a_measurement_that_fails_restores_everything_too(tmp_path: Path) -> None:
    module = seeded(Plain)
    before = everything(module)
    with pytest.raises(ValueError, match=r"needs at least 4 images"):
        ldbench.measure(module, "smoothness", tiny_images(3), root=tmp_path, **SMALL_SMOOTHNESS)
    assert everything(module) == before


def test_under_no_grad_and_in_inference_mode_the_numbers_are_the_same(tmp_path: Path) -> None:
    module, data = seeded(Plain), tiny_images()
    expected = ldbench.measure(module, "smoothness", data, root=tmp_path, **SMALL_SMOOTHNESS)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert ldbench.measure(module, "smoothness", data, root=tmp_path, **SMALL_SMOOTHNESS) == expected


def test_a_record_is_written_where_asked_says_that_the_model_was_given_and_is_found_again(tmp_path: Path) -> None:
    module, data, folder = seeded(Plain), tiny_images(), tmp_path / "asked"
    metrics = ldbench.measure(module, data=data, root=tmp_path, record=folder)
    (path,) = folder.glob("*.json")
    record = validation.read_validated(path)
    assert dict(record.metrics) == metrics
    given = record.config["tokenizer"]["given"]
    assert given["class"].endswith("strangers.Plain")
    assert given["state_dict"] == state_digest(module.state_dict())
    assert record.artifacts["tokenizer"].startswith("given-Plain-")
    assert record.subject["tokenizer"] == "given-Plain"
    assert record.components == {"tokenizer": "Plain"}
    assert str(tmp_path) not in path.read_text()
    (board,) = build_leaderboards([record])
    assert board.subject == "tokenizer"
    before = path.stat().st_mtime_ns
    assert ldbench.measure(module, data=data, root=tmp_path, record=folder) == metrics
    assert path.stat().st_mtime_ns == before
    with torch.no_grad():
        module.decoder.bias += 1
    ldbench.measure(module, data=data, root=tmp_path, record=folder)
    assert len(list(folder.glob("*.json"))) == 2, "other weights are another model"


def test_a_state_dict_is_identified_by_names_types_shapes_and_values() -> None:
    state = {"a": torch.arange(4.0), "b": torch.tensor(True), "c": torch.zeros(0), "d": torch.ones(2).bfloat16()}
    digests = {
        state_digest(changed)
        for changed in (
            state,
            dict(reversed(state.items())),
            {**state, "a": state["a"].view(2, 2)},
            {**state, "a": state["a"].double()},
            {**state, "a": state["a"] + 1},
            {**state, "b": torch.tensor(False)},
            {("e" if key == "a" else key): value for key, value in state.items()},
        )
    }
    assert len(digests) == 6, "the order alone does not count"


def folder_of_images(root: Path, size: int = 32) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("train", "val"):
        for label in ("a", "b"):
            (root / name / label).mkdir(parents=True)
            for index in range(4):
                pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / label / f"{index}.png")
    return root


def test_a_folder_is_read_at_the_size_that_is_given(tmp_path: Path) -> None:
    where = f"folder:{folder_of_images(tmp_path / 'images')}"
    module = seeded(Plain)
    assert ldbench.measure(module, data=where, image_size=16, root=tmp_path)["psnr"].value > 0
    with pytest.raises(ValueError, match=r"read at the tokenizer's size, and Plain does not say it\. .*image_size=256"):
        ldbench.measure(module, data=where, root=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"job": "reconstrct"}, r"no job named 'reconstrct'\. Did you mean reconstruct"),
        ({"job": "generate"}, r"needs a generator|does not measure a tokenizer alone\. Choose one of .*smoothness"),
        ({"job": "predict"}, r"does not measure a tokenizer alone"),
        ({"num_image": 3, "job": "smoothness"}, r"smoothness has no setting num_image\. Did you mean num_images"),
        ({"num_images": 3, "job": "smoothness"}, r"num_images must be at least 4, got 3"),
        ({"num_images": "x", "job": "smoothness"}, r"num_images must be a whole number"),
        ({"batch_size": torch.ones(1)}, r"job\.batch_size must be a number, .* got a Tensor"),
        ({"data": "digit"}, r"no data named 'digit'\. Did you mean digits"),
        ({"data": "digits:DIR"}, r"digits takes no folder"),
        ({"data": "folder"}, r"needs a folder of images: say data='folder:DIR'"),
        ({"data": SimpleNamespace(name="x")}, r"an ImageData, got a SimpleNamespace without image_size"),
        ({"protocol": "digit"}, r"no protocol named 'digit'"),
        ({"protocol": {"splt": "all"}}, r"protocol has no splt\. Did you mean split"),
        ({"protocol": {"split": "al"}}, r"protocol\.split must be one of"),
        ({"tokenizer": "vmae-00000000"}, r"There is no artifact vmae-00000000\. Give its folder, hf://"),
        ({"tokenizer": 3}, r"a torch module or the path of an artifact, got a int"),
        ({"value_range": (1, 0)}, r"value_range must be two ascending numbers"),
        ({"image_size": 36}, r"must return their images \(1, 3, 36, 36\), got \(1, 3, 32, 32\)"),
    ],
)
def test_what_does_not_fit_is_told(arguments: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"tokenizer": seeded(Plain), "root": tmp_path, **arguments}
    with pytest.raises(ValueError, match=sentence):
        ldbench.measure(given.pop("tokenizer"), **given)


def test_the_names_of_the_package_are_listed_and_others_refused() -> None:
    assert {"evaluate", "measure", "Evaluate", "Estimate"} <= set(dir(ldbench)) & set(ldbench.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'measur'"):
        getattr(ldbench, "measur")  # noqa: B009
