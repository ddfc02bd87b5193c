"""Inception-v3: torch-fidelity's network on random weights of the true layout, and what earns the name FID."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ldbench.artifacts import weights
from ldbench.config.compose import Registry
from ldbench.io.files import file_digest
from ldbench.metrics import inception
from ldbench.metrics.inception import Inception
from ldbench.pipeline import components, pipeline

fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="needs the extra `fidelity`")


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the names and shapes of the standard ones, stored as they are."""
    path = tmp_path_factory.mktemp("weights") / "weights-inception.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        state = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict()
    for key, value in state.items():
        if key.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(value)
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def extractor(weights_file: Path) -> Inception:
    return Inception(weights=weights.read_weights(weights_file), sha256=file_digest(weights_file))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_sees_what_torch_fidelity_sees(extractor: Inception, weights_file: Path, images: torch.Tensor) -> None:
    theirs = fidelity.FeatureExtractorInceptionV3(
        "x", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights_file)
    )
    features, logits = theirs(images)
    seen = extractor.extract(images)
    assert seen.features.shape == (2, 2048)
    assert seen.logits.shape == (2, 1008)
    assert features.std() > 0
    torch.testing.assert_close(seen.features, features)
    torch.testing.assert_close(seen.logits, logits)
    assert not extractor.train().network.training


def test_in_another_process_it_sees_the_same(extractor: Inception, images: torch.Tensor) -> None:
    other = pickle.loads(pickle.dumps(extractor))
    assert torch.equal(other.extract(images).spatial, extractor.extract(images).spatial)
    assert not extractor._maps


def test_its_spatial_features_are_the_first_seven_channels_of_mixed_6_in_tensorflows_order(
    extractor: Inception, images: torch.Tensor
) -> None:
    maps = []
    # its first branch comes first
    handle = extractor.network.Mixed_6d.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    seen = extractor.extract(images)
    handle.remove()
    assert seen.spatial.shape == (2, 2023)
    expected = maps[0][:, :7]
    assert expected.std() > 0
    assert torch.equal(seen.spatial.reshape(2, 17, 17, 7), expected.permute(0, 2, 3, 1))


def test_only_the_standard_file_makes_a_distance_fid(
    extractor: Inception, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not extractor.standard
    monkeypatch.setattr(inception, "STANDARD", file_digest(weights_file))
    cfg = SimpleNamespace()
    protocol = pipeline.get_protocol(ldbench_config(weights_file))
    made = components.build_extractor("inception", cfg, protocol)
    assert made.standard


def ldbench_config(weights_file: Path):
    import ldbench

    extra = ["data=imagenet256", f"protocol.weights.inception={weights_file}", "protocol.reconstruction=[psnr]"]
    return ldbench.compose("run", [*extra, "data.root=none", "tokenizer.image_size=256"])


def test_its_digest_is_of_the_weights_and_not_of_their_place(weights_file: Path, tmp_path: Path) -> None:
    moved, other = tmp_path / "moved.pth", tmp_path / "other.pth"
    moved.write_bytes(weights_file.read_bytes())
    other.write_bytes(weights_file.read_bytes() + b"\0")
    sums = [
        components.component_digest("extractor", "inception", pipeline.get_protocol(ldbench_config(path)))
        for path in (weights_file, moved, other)
    ]
    assert sums[0] == sums[1] != sums[2]


def test_weights_of_another_network_are_refused(weights_file: Path) -> None:
    state = weights.read_weights(weights_file)
    with pytest.raises(
        ValueError,
        match=r"not those of torch-fidelity's Inception-v3: .*fc.weight.* Expected the file weights-inception-2015",
    ):
        Inception(weights={key: value for key, value in state.items() if key != "fc.weight"}, sha256="0")


def test_pixels_that_are_not_uint8_are_refused(extractor: Inception) -> None:
    with pytest.raises(ValueError, match=r"uint8 images, got torch\.float32"):
        extractor.extract(torch.zeros(1, 3, 64, 64))


def test_the_name_of_the_published_file_ends_in_the_start_of_its_sha256() -> None:
    assert Registry().option("extractor", "inception").weights.source in weights.BUNDLED
    assert inception.STANDARD.startswith(weights.INCEPTION.rpartition("-")[2].removesuffix(".pth"))
    assert fidelity.URL_INCEPTION_V3 == weights.INCEPTION
    assert weights.INCEPTION.endswith(inception.FILE)
