"""Imagenette and CelebA: image files in torchvision's layouts, read on access.

[0] torchvision, Datasets, https://docs.pytorch.org/vision/stable/datasets.html
[1] Howard, Imagenette, 2019, https://github.com/fastai/imagenette
[2] Liu et al., Deep Learning Face Attributes in the Wild, 2015, http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html
"""

from dataclasses import replace
from pathlib import Path

from ldbench.data import fingerprints
from ldbench.data.checks import validate_settings
from ldbench.data.downloads import ON_REQUEST, Source, get_root
from ldbench.data.image_files import ImageFiles
from ldbench.data.layouts import ONE_CLASS, File, Listing, find_splits

IMAGENETTE_COUNTS = {"training": 9469, "test": 3925}  # of the archives imagenette2*.tgz, in each size
CELEBA_SPLITS = {"train": "0", "valid": "1", "test": "2"}  # in list_eval_partition.txt


class Imagenette(ImageFiles):
    """Ten easy classes of ImageNet [1], 9469 training and 3925 test images, as they are unpacked below `root`.

    `size` chooses the archive: full, 320px or 160px, the shorter side. See `ImageFiles` for the other keys.

    Raises FileNotFoundError for missing folders, and ValueError for other sizes, folders that are incomplete, images
    that cannot be read and downloads that fail.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str,
        download: bool,
        size: str,
        image_size: int,
        fingerprint: str,
        check: str,
        on_error: str,
        subset: float | str | None,
        seed: int,
        cache_dir: str | None,
    ):
        from torchvision import datasets

        validate_settings(
            check=check,
            on_error=on_error,
            fingerprint=fingerprint,
            fingerprint_choices=fingerprints.CHOICES,
            image_size=image_size,
        )
        if size not in datasets.Imagenette._ARCHIVES:
            raise ValueError(f"data.size is {size!r}. Choose one of {', '.join(datasets.Imagenette._ARCHIVES)}.")
        url = datasets.Imagenette._ARCHIVES[size][0]
        archive = url.rpartition("/")[2]
        folder = archive.removesuffix(".tgz")
        source = Source("Imagenette", url, archive, {f"{folder}/{split}": None for split in ("train", "val")})
        there = Path(root).expanduser() / folder
        if download is True and there.is_dir() and not all((there / split).is_dir() for split in ("train", "val")):
            raise ValueError(f"{there} is incomplete. Remove it: data.download=true gets a folder that is not there.")
        root = get_root(
            root, source, download=download, fetch=lambda root: datasets.Imagenette(root, size=size, download=True)
        )
        train, test = find_splits(Path(root) / folder, layout="classes", test_fraction=None)
        for split, files in (("training", train), ("test", test)):
            if len(files) != IMAGENETTE_COUNTS[split]:
                raise ValueError(
                    f"{Path(root) / folder} has {len(files)} {split} images, and Imagenette has "
                    f"{IMAGENETTE_COUNTS[split]}. Remove the folder. Then unpack {archive} again, or {ON_REQUEST} "
                    f"{url}."
                )
        opened = datasets.Imagenette(root, size=size)
        super().__init__(
            root,
            [replace(file, path=f"{folder}/{file.path}") for file in train],
            [replace(file, path=f"{folder}/{file.path}") for file in test],
            titles={wnid: names[0] for wnid, names in zip(opened.wnids, opened.classes, strict=True)},
            name=name,
            image_size=image_size,
            label_safe_flips=True,
            fingerprint=fingerprint,
            check=check,
            on_error=on_error,
            subset=subset,
            seed=seed,
            cache_dir=cache_dir,
        )


class CelebA(ImageFiles):
    """CelebA [2], aligned and cropped: 162 770 training and 19 962 test photographs of faces, 178 x 218 px, one class.

    They are in `root/celeba/img_align_celeba/`, and the splits in `root/celeba/list_eval_partition.txt`; its
    validation split is not used. See `ImageFiles` for the other keys.

    Raises FileNotFoundError for missing files, and ValueError for an altered list, images that cannot be read and
    downloads that fail.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str,
        download: bool,
        image_size: int,
        fingerprint: str,
        check: str,
        on_error: str,
        subset: float | str | None,
        seed: int,
        cache_dir: str | None,
    ):
        from torchvision import datasets

        validate_settings(
            check=check,
            on_error=on_error,
            fingerprint=fingerprint,
            fingerprint_choices=fingerprints.CHOICES,
            image_size=image_size,
        )
        base = datasets.CelebA.base_folder
        images, partition = f"{base}/img_align_celeba", f"{base}/list_eval_partition.txt"
        md5s = {file: md5 for _, md5, file in datasets.CelebA.file_list}
        source = Source(
            "CelebA",
            "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
            f"{images}.zip",
            {images: None, partition: md5s["list_eval_partition.txt"]},
        )
        root = get_root(root, source, download=download, fetch=lambda root: datasets.CelebA(root, download=True))
        found = dict(Listing().images(Path(root) / images, f"{images}/", nested=False))
        lines = [line.split() for line in (Path(root) / partition).read_text(encoding="utf-8").splitlines()]
        missing = [file for file, _ in lines if f"{images}/{file}" not in found]
        if missing:
            raise FileNotFoundError(
                f"{Path(root) / images} lacks {len(missing)} of the {len(lines)} images that list_eval_partition.txt "
                f"names, such as {missing[0]}. Unpack img_align_celeba.zip again."
            )
        train, test = (
            [
                File(f"{images}/{file}", ONE_CLASS, found[f"{images}/{file}"])
                for file, assigned in lines
                if assigned == CELEBA_SPLITS[split]
            ]
            for split in ("train", "test")
        )
        super().__init__(
            root,
            train,
            test,
            name=name,
            image_size=image_size,
            label_safe_flips=True,
            fingerprint=fingerprint,
            check=check,
            on_error=on_error,
            subset=subset,
            seed=seed,
            cache_dir=cache_dir,
        )
