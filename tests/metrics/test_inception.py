"""Inception-v3: torch-fidelity's network on random weights of the true layout, and what earns the name FID."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ldbench.artifacts import weights
from ldbench.config.compose import Registry
from ldbench.io.files import file_digest
from ldbench.jobs._set_metrics import set_metric_name
from ldbench.metrics import adm_npz, inception
from ldbench.metrics.inception import CleanInception, Inception, resize_as_pillow
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


def ldbench_config(weights_file: Path, extractor: str = "inception"):
    import ldbench

    extra = ["data=imagenet256", f"protocol.weights.{extractor}={weights_file}", "protocol.reconstruction=[psnr]"]
    extra += [f"protocol.extractor={extractor}"]
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


@pytest.fixture(scope="module")
def clean(weights_file: Path) -> CleanInception:
    return CleanInception(weights=weights.read_weights(weights_file), sha256=file_digest(weights_file))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (256, 256), (300, 700), (299, 40)])
def test_clean_fids_resizing_is_pillows_bicubic_filter_in_floating_point(height: int, width: int) -> None:
    rng = torch.Generator().manual_seed(height)
    images = torch.randint(0, 2, (1, 3, height, width), generator=rng).mul(255).byte()  # beyond the range when sharp
    channels = [
        np.asarray(Image.fromarray(channel.float().numpy(), mode="F").resize((299, 299), Image.Resampling.BICUBIC))
        for channel in images[0]
    ]
    expected = torch.from_numpy(np.stack(channels)).clamp(0, 255)
    found = resize_as_pillow(images, 299)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found != found.round()).any(), "values are not rounded to 8 bits"


def test_of_images_that_need_no_resizing_both_networks_see_the_same(
    extractor: Inception, clean: CleanInception, images: torch.Tensor
) -> None:
    exact = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    ours, theirs = clean.extract(exact), extractor.extract(exact)
    torch.testing.assert_close(ours.features, theirs.features)
    torch.testing.assert_close(ours.spatial, theirs.spatial)
    torch.testing.assert_close(ours.logits, theirs.logits)
    assert not torch.allclose(clean.features(images), extractor.features(images), rtol=1e-3)


def test_no_distance_on_clean_fids_resizing_is_called_fid(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "STANDARD", file_digest(weights_file))
    state = weights.read_weights(weights_file)
    made = CleanInception(weights=state, sha256=file_digest(weights_file))
    assert not made.standard
    assert set_metric_name("fd", "g", label="inception_clean", standard=made.standard) == "gfd_inception_clean"
    assert (made.statistics, Inception(weights=state, sha256="0").statistics) == ("clean-fid", None)
    digests = {
        components.component_digest("extractor", name, pipeline.get_protocol(ldbench_config(weights_file, name)))
        for name in ("inception", "inception_clean")
    }
    assert len(digests) == 2


def test_statistics_are_those_of_the_extractors_own_resizing_and_width(tmp_path: Path) -> None:
    files = {
        "clean": {"mu": np.zeros(2048), "sigma": np.eye(2048)},
        "adm": {"mu": np.zeros(2048), "sigma": np.eye(2048), "mu_s": np.zeros(2023), "sigma_s": np.eye(2023)},
        "narrow": {"mu": np.zeros(64), "sigma": np.eye(64)},
    }
    for name, arrays in files.items():
        np.savez(tmp_path / f"{name}.npz", **{key: array.astype(np.float32) for key, array in arrays.items()})
    read = adm_npz.read_statistics_of
    assert read(CleanInception, tmp_path / "clean.npz", "inception_clean").keys() == {"normal"}
    assert read(Inception, tmp_path / "adm.npz", "inception").keys() == {"normal", "spatial"}
    with pytest.raises(ValueError, match=r"is in ADM's layout .*inception_clean resizes as clean-fid"):
        read(CleanInception, tmp_path / "adm.npz", "inception_clean")
    for extractor in (Inception, CleanInception):
        with pytest.raises(ValueError, match="mu has 64 numbers, and features of it have 2048"):
            read(extractor, tmp_path / "narrow.npz", "it")
