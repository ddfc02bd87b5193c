"""What does not fit is told before any work begins."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

import ldbench
from ldbench.metrics import adm_npz
from ldbench.pipeline import components, pipeline

Compose = Callable[..., DictConfig]


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    default = pipeline.get_protocol(ldbench.compose("run", ["protocol=default"]))
    with pytest.raises(
        ValueError,
        match=r"no metric named 'pnsr'. Did you mean psnr\? Known: features_vgg16, lpips, ms_ssim, mse, psnr, ssim",
    ):
        components.build_metric("metric", "pnsr", default)


def test_without_torch_fidelity_inception_is_refused_before_any_work_with_what_to_install(
    small: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "get_tokenizer", lambda *_: pytest.fail("work began"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"pip install 'ldbench\[fidelity\]', or set protocol=default"):
        pipeline.train(small("protocol.extractor=inception", "protocol.distribution=[fd]"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("protocol=defalt", r"There is no protocol=defalt\. Did you mean default\?\nAvailable: .*digits"),
        ("protocol.splt=all", "There is no config key protocol.splt. Did you mean split"),
    ],
)
def test_a_mistyped_protocol_is_not_passed_over(override: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ldbench.compose("train", [override])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+protocol.splits=all"], r"There is no config key protocol\.splits\. Did you mean split\?"),
        (["protocol.reconstruction=[pnsr]"], "no metric named 'pnsr'. Did you mean psnr"),
        (["protocol.distribution=[fid]", "protocol.extractor=digits"], "no distribution named 'fid'. Did you mean fd"),
        (["protocol.distribution=[fd]", "protocol.extractor=digit"], "no extractor named 'digit'. Did you mean digits"),
        (
            ["protocol.distribution=[fd,sfd]", "protocol.extractor=digits"],
            r"names sfd, which is of spatial: extractor=digits gives features, logits\. Leave sfd out",
        ),
        (
            ["protocol.reconstruction=[lpips]", "protocol.weights.lpips=nowhere.pth"],
            r"no file nowhere\.pth(.|\n)*say protocol\.weights\.lpips=PATH",
        ),
        (
            ["protocol.reconstruction=[features_vgg16]"],
            r"needs weights that you give it: protocol\.weights\.features_vgg16=PATH",
        ),
        (["protocol.weights.lpips=nowhere.pth"], r"protocol\.weights\.lpips has no effect"),
        (["+protocol.weights.psnr=nowhere.pth"], "psnr takes no weights"),
        (
            ["+jobs.reconstruct.batchsize=3"],
            r"There is no config key jobs\.reconstruct\.batchsize\. Did you mean batch_size\?",
        ),
        (["jobs.reconstruct.batch_size=0"], "at least 1, got 0"),
        (["jobs.reconstruct.batch_size=some"], r"jobs\.reconstruct\.batch_size must be a whole number, got 'some'"),
        (["+job@jobs.probe=probe", "jobs.probe.num_train=1"], "num_train must be a whole number of at least 2"),
        (["+job@jobs.probe=probe", "jobs.probe.teacher=digit"], "no teacher named 'digit'. Did you mean digits"),
    ],
)
def test_what_does_not_fit_is_told_before_any_work(
    small: Compose, overrides: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "get_tokenizer", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=told):
        pipeline.train(small(*overrides))


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("features_vgg16", r"other\.pt: These LPIPS weights lack 33 of 33 tensors"),
        ("lpips", r"other\.pt: These are not torchvision's weights of VGG16"),
    ],
)
def test_weights_of_another_layout_are_told_before_any_work(
    small: Compose, tmp_path: Path, metric: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "get_tokenizer", lambda *_: pytest.fail("work began"))
    torch.save({"w": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=told) as answered:
        pipeline.train(small(f"protocol.reconstruction=[{metric}]", f"protocol.weights.{metric}={tmp_path}/other.pt"))
    assert str(answered.value).startswith(f"protocol.weights.{metric}={tmp_path}/other.pt: ")


def test_what_is_no_job_is_refused(small: Compose) -> None:
    with pytest.raises(ValueError, match=r"ldbench\.data\.digits\.Digits is no job: it has no \w+"):
        pipeline.train(small("jobs.reconstruct._target_=ldbench.data.digits.Digits"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generator=sit", "latents.dtype=fp8"], r"^latents\.dtype must be one of"),
        (["jobs.reconstruct.batch_size=0"], r"^jobs\.reconstruct\.batch_size must be at least 1"),
        (["+job@jobs.gmm=gmm", "jobs.gmm.dim=0"], r"^jobs\.gmm\.dim must be at least 1"),
    ],
)
def test_settings_of_a_job_are_named_by_where_they_stand(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.train(ldbench.compose("train", ["tokenizer=ae", *overrides, f"paths.root={tmp_path}"]))


def test_a_metric_that_the_images_are_too_small_for_is_refused_before_work(tmp_path: Path) -> None:
    chosen = ["tokenizer=ae", "protocol.reconstruction=[psnr,ms_ssim]", f"paths.root={tmp_path}"]
    message = r"ms_ssim, which is of images of 161 px or more.*protocol\.reconstruction=\[psnr\]"
    with pytest.raises(ValueError, match=message):
        pipeline.train(ldbench.compose("train", chosen))
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocol.num_samples=3", r"precision, which needs sets of at least 4 images, and there are 3 samples\."),
        ("protocol.num_samples=1", r"names fd, which needs sets of at least 2 images, and there is 1 sample\."),
        ("protocol.reference=three.npz", r"names precision, which needs .* there are 3 reference images\."),
    ],
)
def test_sets_that_are_too_small_for_a_metric_are_refused_before_work(
    override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adm_npz.write(Path("three.npz"), [torch.zeros(3, 3, 32, 32, dtype=torch.uint8)], 3)
    chosen = ["tokenizer=ae", "generator=sit", override]
    with pytest.raises(ValueError, match=message):
        pipeline.train(ldbench.compose("train", [*chosen, f"paths.root={tmp_path}"]))
    assert not (tmp_path / "artifacts").exists()


def test_a_reference_of_another_size_is_refused_before_work(tmp_path: Path) -> None:
    adm_npz.write(tmp_path / "reference.npz", [torch.zeros(6, 3, 64, 64, dtype=torch.uint8)], 6)
    chosen = ["tokenizer=ae", "generator=sit", f"protocol.reference={tmp_path / 'reference.npz'}"]
    with pytest.raises(ValueError, match=r"holds images of 64 x 64 px, and samples have 32 x 32 px"):
        pipeline.train(ldbench.compose("train", [*chosen, f"paths.root={tmp_path}"]))
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(
    ("protocol", "file"),
    [
        ("imagenet256_adm", "VIRTUAL_imagenet256_labeled.npz"),
        ("imagenet256_statistics", "imagenet256_statistics.npz"),
    ],
)
def test_the_file_of_a_public_reference_is_named_where_it_is_missing(
    protocol: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ["tokenizer=ae", "generator=sit", f"protocol={protocol}", f"paths.root={tmp_path}"]
    for override, named in ([], file), (["protocol.reference=elsewhere.npz"], "elsewhere.npz"):
        with pytest.raises(
            FileNotFoundError, match=f"protocol={protocol} compares samples with the file {re.escape(named)}, and there"
        ):
            pipeline.train(ldbench.compose("train", [*chosen, *override]))


def test_a_public_reference_of_another_kind_is_refused(tmp_path: Path) -> None:
    chosen = ["tokenizer=ae", "generator=sit", f"paths.root={tmp_path}", f"protocol.reference={tmp_path / 'r.npz'}"]
    np.savez(tmp_path / "r.npz", mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(ValueError, match="mu has 64 numbers, and features of inception have 2048"):
        pipeline.train(ldbench.compose("train", [*chosen, "protocol=imagenet256_statistics"]))
    with pytest.raises(ValueError, match="holds normal statistics and no images, and sfd needs spatial"):
        pipeline.train(ldbench.compose("train", [*chosen, "protocol=imagenet256_adm"]))
    words = ["protocol.extractor=inception", "protocol.distribution=[fd]", "protocol.ratio_extractors=[digits]"]
    with pytest.raises(ValueError, match="contains statistics of the standard Inception-v3, and digits is another"):
        pipeline.train(ldbench.compose("train", [*chosen, *words]))
