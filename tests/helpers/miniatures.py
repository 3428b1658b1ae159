"""Miniatures of the published archives: few and small images under the exact names."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

Pixels = NDArray[np.uint8]
Files = dict[str, bytes]


def pixels(name: str, height: int = 40, width: int = 48) -> Pixels:
    """Return an image that only its name decides: a smooth one with a little noise."""
    generator = np.random.default_rng(list(name.encode()))
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / generator.uniform(4, 20) + columns / generator.uniform(4, 20))
             for _ in range(3)]  # fmt: skip
    noise = generator.normal(0, 6, (height, width, 3))
    return np.clip(128 + 90 * np.dstack(waves) + noise, 0, 255).astype(np.uint8)


def image(name: str, height: int = 40, width: int = 48) -> bytes:
    """Return ``pixels`` encoded as the ending of the name says."""
    kinds = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP"}
    file = io.BytesIO()
    kind = kinds[name.rpartition(".")[2].lower()]
    Image.fromarray(pixels(name, height, width)).save(file, kind)
    return file.getvalue()


def images(names: Iterable[str], height: int = 40, width: int = 48) -> Files:
    """Return an image for each name."""
    return {name: image(name, height, width) for name in names}


def as_zip(files: Mapping[str, bytes]) -> bytes:
    """Return a zip as people pack it: folders as entries, macOS's files beside."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in sorted({f"{Path(name).parent.as_posix()}/" for name in files} - {"./"}):
            archive.writestr(zipfile.ZipInfo(folder, (2020, 1, 1, 0, 0, 0)), b"")
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
        parent, _, last = next(iter(files)).rpartition("/")
        junk = zipfile.ZipInfo(f"__MACOSX/{parent}/._{last}", (2020, 1, 1, 0, 0, 0))
        archive.writestr(junk, b"\0\5\x16\7 no image")
    return file.getvalue()


def as_tar(files: Mapping[str, bytes], prefix: str = "") -> bytes:
    """Return an uncompressed tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def as_tar_gz(files: Mapping[str, bytes], prefix: str = "") -> bytes:
    """Return a tar.gz."""
    return gzip.compress(as_tar(files, prefix), mtime=0)


def in_parts(content: bytes, name: str, count: int) -> Files:
    """Return a file cut by ``split --numeric-suffixes``."""
    size = -(-len(content) // count)
    return {f"{name}.{i:02d}": content[i * size : (i + 1) * size] for i in range(count)}


SCENES = ("0001_001_S6_00100_00060_3200_L", "0002_001_GP_00800_00350_5500_N")


def sidd_medium(prefix: str = "train/", size: tuple[int, int] = (40, 48)) -> bytes:
    """Return SIDD-Medium: Restormer's layout, or ``SIDD_Medium_Srgb/Data/`` of the authors."""
    names = [
        f"{prefix}{scene}/{scene[:4]}_{role}_SRGB_{shot}.PNG"
        for scene in SCENES
        for shot in ("010", "011")
        for role in ("GT", "NOISY")
    ]
    return as_zip(images(names, *size))


def sidd_small(size: tuple[int, int] = (40, 48)) -> bytes:
    """Return SIDD-Small: a pair of each scene instance, whose number is in its folder's name."""
    names = [
        f"SIDD_Small_sRGB_Only/Data/{scene}/{role}_SRGB_010.PNG"
        for scene in SCENES
        for role in ("GT", "NOISY")
    ]
    return as_zip(images(names, *size))


HEADER_TEXT = 116
"""Bytes of a MATLAB file's header that are for people."""


def mat(variable: str, values: Any) -> bytes:
    """Return a MATLAB file of version 5, its header without the time."""
    file = io.BytesIO()
    savemat(file, {variable: values}, do_compression=True)
    return b"MATLAB 5.0 MAT-file".ljust(HEADER_TEXT) + file.getvalue()[HEADER_TEXT:]


def blocks(role: str, scenes: int = 2, per_scene: int = 3, side: int = 40) -> Pixels:
    """Return validation blocks (scenes, blocks, side, side, 3)."""
    return np.array(
        [[pixels(f"{role} {s} {b}", side, side) for b in range(per_scene)] for s in range(scenes)]
    )


def sidd_validation(prefix: str = "", **options: int) -> bytes:
    """Return the validation blocks."""
    names = {"Noisy": "ValidationNoisyBlocksSrgb", "Gt": "ValidationGtBlocksSrgb"}
    return as_zip(
        {f"{prefix}{name}.mat": mat(name, blocks(role, **options)) for role, name in names.items()}
    )


CROPS = [f"{scene}/{scene}-1/{scene}-1_{x}_0" for scene in ("000", "001") for x in (0, 256)]


def spa_train() -> bytes:
    """Return the joined real_world.zip of the authors."""
    names = [f"real_world{truth}/{crop}.png" for crop in CROPS for truth in ("", "_gt")]
    return as_zip(images(names))


def spa_list(crops: Iterable[str] = CROPS) -> bytes:
    """Return real_world.txt."""
    lines = (f"/real_world/{crop}.png /real_world_gt/{crop}.png\n" for crop in crops)
    return "".join(lines).encode()


def spa_test() -> bytes:
    """Return real_test_1000.zip."""
    names = [f"real_test_1000/rain/{number:03d}.png" for number in range(3)]
    names += [f"real_test_1000/gt/{number:03d}gt.png" for number in range(3)]
    return as_zip(images(names))


def spa_kaggle() -> bytes:
    """Return Kaggle's archive."""
    return as_zip(
        images(
            f"spa/{part}/{role}/{number}.png"
            for part, numbers in (("train", range(1, 5)), ("test", range(5, 8)))
            for number in numbers
            for role in ("rain", "norain")
        )
    )


BLUR_SETS = {
    "J": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref",
    "R": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref",
}


def realblur(suffix: str = "") -> Files:
    """Return the files of RealBlur.tar.gz; the lists end lines as the published ones do."""
    files: Files = {}
    for which, folder in BLUR_SETS.items():
        for split, scenes in (("train", (1, 3)), ("test", (2,))):
            lines = []
            for scene in scenes:
                for k in (1, 2):
                    pair = [f"{folder}/scene{scene:03d}/{role}/{role}_{k}.png"
                            for role in ("gt", "blur")]  # fmt: skip
                    files |= images(pair)
                    lines.append(f"{pair[0]} {pair[1]} \n")
            files[f"RealBlur_{which}_{split}_list.txt"] = "".join(lines).encode()
    return files


def realblur_flat() -> bytes:
    """Return Restormer's archive of test images."""
    return as_zip(
        images(
            f"test/RealBlur_{which}/{role}/scene002-{k}.png"
            for which in "JR"
            for role in ("input", "target")
            for k in (5, 6)
        )
    )


DFWB = {
    "DIV2K.zip": ["DIV2K/0001.png", "DIV2K/0002.png"],
    "Flickr2K.zip": ["Flickr2K/000001.png"],
    "WaterlooED.zip": ["WaterlooED/00001.bmp", "WaterlooED/00002.bmp"],
    "BSD400.zip": ["BSD400/100007.png"],
}


def rain13k(count: int = 3) -> bytes:
    """Return Rain13K, of mixed formats."""
    endings = ("png", "jpg")
    return as_zip(
        images(
            f"train/Rain13K/{role}/{number}.{endings[number % 2]}"
            for number in range(1, count + 1)
            for role in ("input", "target")
        )
    )


def gopro_official() -> bytes:
    """Return GOPRO_Large.zip."""
    return as_zip(
        images(
            f"{part}/{scene}/{role}/{frame:06d}.png"
            for part, scene in (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00"))
            for role in ("blur", "blur_gamma", "sharp")
            for frame in (47, 48)
        )
    )


def gopro_restormer(part: str = "train") -> bytes:
    """Return Restormer's archive of a part."""
    folder = "train" if part == "train" else "test/GoPro"
    return as_zip(
        images(
            f"{folder}/{role}/GOPR0372_07_00-{frame:06d}.png"
            for role in ("input", "target")
            for frame in (47, 48)
        )
    )


def dnd(photographs: int = 2) -> bytes:
    """Return DND: MATLAB 7.3, two boxes of 16x16 in each photograph."""
    files: Files = {}
    for number in range(1, photographs + 1):
        file = io.BytesIO()
        with h5py.File(file, "w") as opened:
            values = pixels(f"dnd {number}").transpose(2, 1, 0) / np.float32(255)
            opened["InoisySRGB"] = values.astype(np.float32)
        files[f"dnd_2017/images_srgb/{number:04d}.mat"] = file.getvalue()
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        info = opened.create_group("info")
        references = []
        for number in range(photographs):
            boxes = np.array([[1, 2, 16, 17], [20, 30, 35, 45]], float).T
            info[f"boxes_{number}"] = boxes
            references.append(info[f"boxes_{number}"].ref)
        info.create_dataset(
            "boundingboxes", data=np.array([references], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype
        )
    files["dnd_2017/info.mat"] = file.getvalue()
    return as_zip(files)
