"""Downloads of torchvision's datasets from a stand-in for their servers: torchvision's own code fetches and unpacks."""

import shutil
import sys
import urllib.error
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests import small_datasets
from torchvision import datasets
from torchvision.datasets import celeba, utils

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.interfaces import ImageData
from ldbench.doctor import build_checks

ARCHIVES = {  # of one archive: the class, its folder
    "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
    "cifar100": (datasets.CIFAR100, "cifar-100-python"),
    "stl10": (datasets.STL10, "stl10_binary"),
}


class Server:
    """Files by their address; counts how often each is fetched."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.fetched: list[str] = []

    def retrieve(self, url: str, filename: str, chunk_size: int = 0) -> None:
        self.fetched.append(url)
        if url not in self.files:
            raise urllib.error.URLError("[Errno -2] Name or service not known")
        shutil.copy(self.files[url], filename)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(utils, "_urlretrieve", server.retrieve)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    return server


def serve(name: str, server: Server, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Writes a small dataset and puts its archive, or its files, on the server."""
    origin = folder / "origin"
    small_datasets.WRITERS[name](origin, patch)
    if name in ARCHIVES:
        kind, inner = ARCHIVES[name]
        patch.setattr(kind, "tgz_md5", small_datasets.pack(origin, inner, folder / "archive.tgz"))
        server.files[kind.url] = folder / "archive.tgz"
    elif name == "imagenette":
        url, _ = datasets.Imagenette._ARCHIVES["full"]
        packed = small_datasets.pack(origin, "imagenette2", folder / "archive.tgz")
        patch.setattr(datasets.Imagenette, "_ARCHIVES", {**datasets.Imagenette._ARCHIVES, "full": (url, packed)})
        server.files[url] = folder / "archive.tgz"
    else:
        for url, file, _ in datasets.SVHN.split_list.values():
            if (origin / file).exists():
                server.files[url] = origin / file


def opened(name: str, root: Path, *overrides: str) -> ImageData:
    size = {"cifar10": 32, "cifar100": 32, "svhn": 32, "stl10": 96}.get(name, 16)
    words = [f"data={name}", f"data.root={root}", f"tokenizer.image_size={size}", *overrides]
    return instantiate(ldbench.compose("train", words).data)


FETCHED = ("cifar10", "cifar100", "stl10", "imagenette", "svhn")


@pytest.mark.parametrize("name", FETCHED)
def test_what_is_downloaded_is_what_lies_on_the_server(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(name, server, tmp_path, monkeypatch)
    with pytest.raises(FileNotFoundError, match=r"set data\.download=true"):
        opened(name, tmp_path / "new")
    assert not server.fetched
    assert not (tmp_path / "new").exists()
    data = opened(name, tmp_path / "new", "data.download=true")
    assert data.fingerprint == opened(name, tmp_path / "origin").fingerprint
    assert sorted(server.fetched) == sorted(server.files)
    assert opened(name, tmp_path / "new", "data.download=true").fingerprint == data.fingerprint
    assert len(server.fetched) == len(server.files)  # once


@pytest.mark.parametrize("name", FETCHED)
def test_a_server_that_does_not_answer_is_an_error_with_its_address(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(name, server, tmp_path, monkeypatch)
    server.files.clear()
    with pytest.raises(ValueError, match=r"cannot be downloaded from http.*: .*Name or service not known.*start again"):
        opened(name, tmp_path / "new", "data.download=true")


def test_an_archive_with_other_content_is_not_unpacked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("cifar10", server, tmp_path, monkeypatch)
    archive = tmp_path / "archive.tgz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"CIFAR-10 cannot be downloaded .*corrupted"):
        opened("cifar10", tmp_path / "new", "data.download=true")
    assert not (tmp_path / "new" / "cifar-10-batches-py").exists()
    archive.write_bytes(whole)
    assert len(opened("cifar10", tmp_path / "new", "data.download=true").train) == 10  # the half one is replaced


def test_an_altered_file_is_replaced_on_request(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("cifar10", server, tmp_path, monkeypatch)
    expected = opened("cifar10", tmp_path / "origin").fingerprint
    batch = tmp_path / "origin" / "cifar-10-batches-py" / "data_batch_2"
    batch.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"data_batch_2 is not CIFAR-10's file"):
        opened("cifar10", tmp_path / "origin")
    assert opened("cifar10", tmp_path / "origin", "data.download=true").fingerprint == expected


def test_an_archive_that_is_there_is_unpacked_without_the_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("cifar10", server, tmp_path, monkeypatch)
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "archive.tgz", tmp_path / "new" / "cifar-10-python.tar.gz")
    with pytest.raises(FileNotFoundError, match=r"Unpack .*cifar-10-python\.tar\.gz there, or set data\.download=true"):
        opened("cifar10", tmp_path / "new")
    assert len(opened("cifar10", tmp_path / "new", "data.download=true").train) == 10
    assert not server.fetched


def test_of_two_that_want_the_same_one_downloads(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("svhn", server, tmp_path, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: opened("svhn", tmp_path / "new", "data.download=true").fingerprint, range(2)))
    assert found[0] == found[1]
    assert len(server.fetched) == 2  # the two files


def test_imagenette_that_is_unpacked_in_part_is_not_taken(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("imagenette", server, tmp_path, monkeypatch)
    shutil.rmtree(tmp_path / "origin" / "imagenette2" / "val")
    with pytest.raises(FileNotFoundError, match=r"Imagenette is incomplete: .*imagenette2/val is missing"):
        opened("imagenette", tmp_path / "origin")
    with pytest.raises(ValueError, match=r"imagenette2 is incomplete\. Remove it: data\.download=true"):
        opened("imagenette", tmp_path / "origin", "data.download=true")


def test_celeba_comes_from_google_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_datasets.write_celeba(tmp_path / "origin", monkeypatch)
    base = tmp_path / "origin" / "celeba"
    with zipfile.ZipFile(base / "img_align_celeba.zip", "w") as archive:
        for path in (base / "img_align_celeba").iterdir():
            archive.write(path, path.relative_to(base))

    def fetch(file_id: str, root: str, filename: str, md5: str) -> None:
        Path(root).mkdir(parents=True, exist_ok=True)
        shutil.copy(base / filename, root)

    monkeypatch.setattr(celeba, "download_file_from_google_drive", fetch)
    data = opened("celeba", tmp_path / "new", "data.download=true")
    assert data.fingerprint == opened("celeba", tmp_path / "origin").fingerprint


def test_celeba_without_gdown_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ValueError, match=r"CelebA cannot be downloaded .*pip install gdown"):
        opened("celeba", tmp_path / "new", "data.download=true")


def test_a_root_that_cannot_be_made_is_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be downloaded from .*Not a directory"):
        opened("cifar10", tmp_path / "file" / "new", "data.download=true")


def test_the_doctor_downloads_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve("cifar10", server, tmp_path, monkeypatch)

    def examined(root: Path) -> Any:
        words = ["data=cifar10", f"data.root={root}", "data.download=true"]
        checks = build_checks(ldbench.compose("doctor", words), Registry())
        (found,) = next(check for subject, check in checks if subject == "data")()
        return found

    found = examined(tmp_path / "new")
    assert found.level == "broken"
    assert "is not a folder" in found.what
    assert "data.download=true" in found.cure
    assert not server.fetched
    found = examined(tmp_path / "origin")
    assert (found.level, found.what) == ("ok", "cifar10: 10 training and 4 test images of 10 classes")


def test_the_doctor_asks_for_the_root() -> None:
    with pytest.raises(ValueError, match=r"These need a value: data\.root\. Give it, as in data\.root=\.\.\."):
        build_checks(ldbench.compose("doctor", ["data=cifar10"]), Registry())
