"""Sources: bytes against the wheel, decoding against pixels made by hand, mistakes of users."""

import dataclasses
import hashlib
import importlib.resources
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image
from skimage.data._registry import registry

from pipeline.config.read import check
from pipeline.config.sources import (
    BundledPhotograph,
    BundledSource,
    Crops,
)
from pipeline.runtime.errors import UserError
from pipeline.sources import bundled, folder, source_module
from pipeline.sources.archives.reading import write_archive
from pipeline.sources.photographs import ARCHIVE, ImageFile, decode

Pixels = NDArray[np.uint8]

WHOLE = Crops(None, None, None)
ORIENTATION = 0x0112

UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored[::-1].transpose(1, 0, 2),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: stored[:, ::-1].transpose(1, 0, 2),
}
"""What the value of the EXIF tag means: row 0 and column 0 of what is stored lie at (1) top left,
(2) top right, (3) bottom right, (4) bottom left, (5) left top, (6) right top, (7) right bottom,
(8) left bottom of the picture (JEITA CP-3451)."""


def encoded(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """Return a PNG made by hand; ``rows`` without the filter bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + crc

    length = len(rows) // height
    filtered = b"".join(
        b"\0" + rows[start : start + length] for start in range(0, len(rows), length)
    )
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *(chunk(part[:4], part[4:]) for part in extra)]
    chunks += [chunk(b"IDAT", zlib.compress(filtered)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff_16_bit(width: int, height: int) -> bytes:
    """Return a TIFF of 16-bit RGB, uncompressed, made by hand."""
    values = bytes(range(256)) * (width * height * 6 // 256 + 1)
    strip = values[: width * height * 6]
    tags = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 0), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(strip))),
    ]
    end = 8 + 2 + 12 * len(tags) + 4
    place = {258: end, 273: end + 6}
    directory = b"".join(
        struct.pack("<HHII", tag, kind, count, place.get(tag, value))
        for tag, kind, count, value in tags
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + directory + bytes(4) + struct.pack("<HHH", 16, 16, 16) + strip


def exif(*tags: tuple[int, int, int, bytes]) -> bytes:
    """Return an EXIF block made by hand of (tag, type, count, value of up to 4 bytes)."""
    directory = b"".join(
        struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")
        for tag, kind, count, value in tags
    )
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + directory + bytes(4)


def archived(path: Path, content: bytes, name: str = "x.png") -> ImageFile:
    write_archive(path / "a.zip", [(name, lambda: content)])
    return ImageFile(path / "a.zip", name)


# Decoding


def test_grey_palette_and_one_bit_become_rgb() -> None:
    grey = decode(png(3, 2, 8, 0, bytes([0, 1, 2, 100, 254, 255])), "x")
    assert_array_equal(grey[..., 0], [[0, 1, 2], [100, 254, 255]])
    assert_array_equal(grey[..., 1:], grey[..., [0, 0]])

    palette = b"PLTE" + bytes([10, 20, 30, 40, 50, 60, 70, 80, 90])
    chosen = decode(png(3, 1, 8, 3, bytes([2, 0, 1]), palette), "x")
    assert_array_equal(chosen, [[[70, 80, 90], [10, 20, 30], [40, 50, 60]]])

    bits = decode(png(4, 2, 1, 0, bytes([0b10100000, 0b01000000])), "x")
    assert_array_equal(bits[..., 0], [[255, 0, 255, 0], [0, 255, 0, 0]])

    for image in (grey, chosen, bits):
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_an_opaque_alpha_channel_is_dropped(pixels: Callable[..., Pixels]) -> None:
    image = pixels(1, 3, 4)
    with_alpha = np.dstack([image, np.full((3, 4), 255, np.uint8)])
    assert_array_equal(decode(png(4, 3, 8, 6, with_alpha.tobytes()), "x"), image)
    assert_array_equal(decode(png(2, 1, 8, 4, bytes([7, 255, 9, 255])), "x")[0, :, 1], [7, 9])
    palette = b"PLTE" + bytes([10, 20, 30, 40, 50, 60])
    opaque = png(2, 1, 8, 3, bytes([1, 0]), palette, b"tRNS\xff\xff")
    assert_array_equal(decode(opaque, "x"), [[[40, 50, 60], [10, 20, 30]]])


@pytest.mark.parametrize(
    "content",
    [
        png(2, 1, 8, 6, bytes([1, 2, 3, 255, 4, 5, 6, 254])),
        png(2, 1, 8, 4, bytes([1, 0, 2, 255])),
        png(2, 1, 8, 3, bytes([0, 1]), b"PLTE" + bytes(6), b"tRNS\xff\x80"),
        png(2, 1, 8, 2, bytes([1, 2, 3, 4, 5, 6]), b"tRNS\0\1\0\2\0\3"),
        png(2, 1, 8, 0, bytes([7, 8]), b"tRNS\0\7"),
        encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 4)), "WEBP", lossless=True),
    ],
    ids=["RGBA", "grey and alpha", "palette", "colour key", "grey key", "WebP"],
)
def test_transparent_pixels_are_told(content: bytes) -> None:
    with pytest.raises(UserError, match=r"photo.png: transparent pixels .* save it without alpha"):
        decode(content, "photo.png")


@pytest.mark.parametrize(
    "content",
    [
        png(1, 2, 16, 0, bytes(4)),
        png(1, 2, 16, 2, bytes(12)),
        png(1, 2, 16, 4, bytes([0, 1, 255, 255] * 2)),
        png(1, 2, 16, 6, bytes([0, 1, 0, 2, 0, 3, 255, 255] * 2)),
        tiff_16_bit(3, 2),
        encoded(Image.new("F", (2, 2)), "TIFF"),
    ],
    ids=["grey", "RGB", "grey and alpha", "RGBA", "RGB TIFF", "float TIFF"],
)
def test_more_than_eight_bits_are_told(content: bytes) -> None:
    with pytest.raises(UserError, match=r"photo.png: more than 8 bits .* save it with 8 bits"):
        decode(content, "photo.png")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_told(kind: str) -> None:
    with pytest.raises(UserError, match=r"photo.jpg: CMYK colours; save it as RGB"):
        decode(encoded(Image.new("CMYK", (8, 8)), kind), "photo.jpg")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_formats_are_decoded(kind: str, tmp_path: Path, pixels: Callable[..., Pixels]) -> None:
    image = pixels(2, 24, 40) if kind != "JPEG" else np.full((24, 40, 3), (200, 90, 30), np.uint8)
    file = archived(tmp_path, encoded(image, kind, lossless=True))
    assert file.size() == (24, 40)
    tolerance = 3 if kind == "JPEG" else 0  # colours are rounded on the way
    assert np.abs(file.pixels().astype(int) - image).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("value", UPRIGHT)
def test_images_are_turned_as_exif_says(
    value: int, kind: str, tmp_path: Path, pixels: Callable[..., Pixels]
) -> None:
    stored = np.kron(pixels(3, 2, 3) // 2 + 64, np.ones((16, 16, 1), np.uint8))
    tags = Image.Exif()
    tags[ORIENTATION] = value
    options = {"lossless": True} if kind == "WEBP" else {}
    if kind == "JPEG":
        options = {"quality": 100, "subsampling": "4:4:4"}
    file = archived(tmp_path, encoded(stored, kind, exif=tags, **options))
    expected = UPRIGHT[value](stored)
    found = file.pixels()
    assert file.size() == found.shape[:2] == expected.shape[:2]
    assert np.abs(found.astype(int) - expected).max() <= (6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_a_truncated_image_is_told(kind: str, pixels: Callable[..., Pixels]) -> None:
    content = encoded(pixels(4, 60, 80), kind)
    for share in (0.02, 0.3, 0.6, 0.9):
        with pytest.raises(UserError, match=r"^photo: (damaged|not an) image"):
            decode(content[: int(share * len(content))], "photo")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (bytes(50_000), "nothing but zeros under the ending .png"),
        (b"This is a text.\n", "not an image but text; expected PNG, JPEG, TIFF, BMP or WebP"),
        (b"<svg></svg>", "SVG under the ending .png; save it as TIFF, PNG or JPEG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "(HEIC under the ending .png|damaged image)"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF under the ending .png"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 under the ending .png"),
        (b"GIF89a", "GIF under the ending .png"),
        (b"\xff\xfeh\0i\0", "not an image but text"),
        ("Grüße".encode()[:-1], "not an image but text"),
        (b"<!-- x -->\n<html>", "web page under the ending .png; fetch or copy it anew"),
        (b'<?xml version="1.0"?><Error/>', "XML under the ending .png; fetch or copy it anew"),
        (b"RIFF\0\0\0\0AVI LIST", "video under the ending .png; remove it"),
        (b"\0\0\1\0mdat", "video under the ending .png; remove it"),
        (b"BZh9", "bzip2 archive under the ending .png; unpack it"),
        (bytes([97]) + bytes(256) + b"ustar", "tar archive under the ending .png; unpack it"),
        (b"\0\5\x16\7", "AppleDouble file under the ending .png; remove it"),
        (b"/annex/objects/SHA256E-s1--a.png\n", "git-annex pointer .* git annex get"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08", "lossless or hierarchical JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_image_is_told_by_its_content(
    content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"^photo.png: {message}"):
        decode(content, "photo.png")
    with pytest.raises(UserError, match=rf"^photo.png: {message}"):
        archived(tmp_path, content, "photo.png").size()


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.new("RGB", (9, 6)), "WEBP", exif=b"Exif\0\0MM\0$\0\0\0\x08"),
        encoded(
            Image.new("RGB", (9, 6)),
            "JPEG",
            exif=exif((0x0111, 2, 4, b"abc\0"), (ORIENTATION, 3, 1, b"\0\6")),
        ),
    ],
    ids=["no TIFF header", "a text where an offset belongs"],
)
def test_damaged_exif_data_is_told_or_ignored(content: bytes, tmp_path: Path) -> None:
    file = archived(tmp_path, content)
    try:
        assert file.size() == file.pixels().shape[:2]
    except UserError as error:
        assert "x.png: damaged" in str(error)


@pytest.mark.parametrize("place", ["before", "behind"])
def test_a_png_is_turned_wherever_its_exif_data_is(place: str, tmp_path: Path) -> None:
    rows = bytes(range(18))
    turned = b"eXIf" + exif((ORIENTATION, 3, 1, b"\0\6"))[6:]
    content = png(3, 2, 8, 2, rows, turned)
    if place == "behind":
        chunk = len(turned) + 8
        start = content.index(turned) - 4
        end = content.index(b"IEND") - 4
        content = (content[:start] + content[start + chunk : end]
                   + content[start : start + chunk] + content[end:])  # fmt: skip
    file = archived(tmp_path, content)
    assert file.size() == file.pixels().shape[:2] == (3, 2)


def test_a_photograph_of_100_megapixels_is_read_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    content = encoded(Image.new("RGB", (12_500, 8_000), (9, 8, 7)), compress_level=1)
    file = archived(tmp_path, content)
    assert file.size() == (8_000, 12_500)
    assert file.pixels()[-1, -1].tolist() == [9, 8, 7]
    assert not recwarn.list


def test_a_decompression_bomb_is_told(tmp_path: Path) -> None:
    bomb = png(100_000, 100_000, 8, 2, b"\0" * 100_000)
    with pytest.raises(UserError, match=r"^x.png: .*10,000 megapixels, expected"):
        decode(bomb, "x.png")
    with pytest.raises(UserError, match=r"^x.png: .*10,000 megapixels, expected"):
        archived(tmp_path, bomb).size()


# Archives


def test_an_archive_holds_the_bytes_sorted_and_undated(tmp_path: Path) -> None:
    entries = [("b/ü.png", lambda: b"2" * 1000), ("a.png", lambda: b"1")]
    write_archive(tmp_path / "first.zip", entries)
    write_archive(tmp_path / "second.zip", list(reversed(entries)))
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.png", "b/ü.png"]
        assert archive.read("b/ü.png") == b"2" * 1000
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_an_archive_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.zip", [("a", lambda: b"old")])
    content = (tmp_path / "a.zip").read_bytes()

    def fail() -> bytes:
        raise UserError("gone")

    with pytest.raises(UserError, match="gone"):
        write_archive(tmp_path / "a.zip", [("a", lambda: b"new"), ("b", fail)])
    assert (tmp_path / "a.zip").read_bytes() == content
    assert list(tmp_path.iterdir()) == [tmp_path / "a.zip"]


# The bundled photographs


@pytest.fixture
def skimage(values: dict[str, Any]) -> BundledSource:
    source = check(values).sources["skimage"]
    assert isinstance(source, BundledSource)
    return source


def test_a_kind_names_its_module() -> None:
    assert source_module("bundled") is bundled
    assert source_module("folder") is folder


def installed(name: str, chosen: BundledPhotograph) -> Any:
    package, folder = bundled.FOLDERS[chosen.package]
    return importlib.resources.files(package) / folder / name


def test_hashes_are_those_that_scikit_image_states(skimage: BundledSource) -> None:
    stated = {n: p for n, p in skimage.photographs.items() if p.package == "scikit-image"}
    assert len(stated) == 19
    for name, chosen in stated.items():
        assert chosen.sha256 == registry[f"data/{name}"], name


def test_the_archive_holds_the_files_of_the_wheel(skimage: BundledSource, tmp_path: Path) -> None:
    bundled.download(skimage, tmp_path)
    bundled.download(skimage, tmp_path / "again")
    assert (tmp_path / ARCHIVE).read_bytes() == (tmp_path / "again" / ARCHIVE).read_bytes()
    with zipfile.ZipFile(tmp_path / ARCHIVE) as archive:
        assert archive.namelist() == sorted(skimage.photographs)
        for name, chosen in skimage.photographs.items():
            assert archive.read(name) == installed(name, chosen).read_bytes()


def test_bundled_photographs_are_clean_and_split_by_scene(
    skimage: BundledSource, tmp_path: Path
) -> None:
    listed = bundled.photographs(skimage, tmp_path)
    assert len(listed) == len({photograph.id for photograph in listed}) == 20
    assert all(photograph.degraded is None for photograph in listed)
    by_id = {photograph.id: photograph for photograph in listed}
    assert by_id["rocket"].split == "test" and by_id["rocket"].scene == "rocket"
    assert by_id["rocket"].data_set == "scikit-image"
    assert by_id["grace_hopper"].data_set == "matplotlib"
    assert by_id["astronaut"].clean == ImageFile(tmp_path / ARCHIVE, "astronaut.png")
    assert by_id["motorcycle_left"].scene == by_id["motorcycle_right"].scene == "motorcycle"


def test_no_scene_is_in_two_splits(skimage: BundledSource, tmp_path: Path) -> None:
    splits: dict[str, set[str]] = {}
    for photograph in bundled.photographs(skimage, tmp_path):
        splits.setdefault(photograph.scene, set()).add(photograph.split)
    assert all(len(found) == 1 for found in splits.values()), splits
    assert {next(iter(found)) for found in splits.values()} == {"synthetic", "real", "test"}


def test_the_demo_tests_on_twelve_scenes(skimage: BundledSource) -> None:
    scenes = [chosen.scene for chosen in skimage.photographs.values() if chosen.split == "test"]
    assert len(set(scenes)) == len(scenes) == 12


def test_the_middle_of_a_photograph_is_used(skimage: BundledSource, tmp_path: Path) -> None:
    middle = dataclasses.replace(skimage.middle, test=180)
    settings = dataclasses.replace(skimage, middle=middle)
    bundled.download(settings, tmp_path)
    by_id = {photograph.id: photograph for photograph in bundled.photographs(settings, tmp_path)}
    for name, rows, columns in (
        ("chelsea", slice(60, 240), slice(135, 315)),  # of 300 x 451
        ("text", slice(0, 172), slice(134, 314)),  # of 172 x 448: all its height
    ):
        found = by_id[name].clean
        assert found is not None
        file = installed(f"{name}.png", skimage.photographs[f"{name}.png"])
        expected = np.asarray(Image.open(str(file)).convert("RGB"))[rows, columns]
        assert found.size() == expected.shape[:2]
        assert_array_equal(found.pixels(), expected)
    whole = by_id["astronaut"].clean
    assert whole is not None and whole.size() == (512, 512)


def test_another_version_of_a_bundled_file_is_told(skimage: BundledSource, tmp_path: Path) -> None:
    name = "coffee.png"
    wrong = dataclasses.replace(skimage.photographs[name], sha256="0" * 64)
    settings = dataclasses.replace(skimage, photographs=skimage.photographs | {name: wrong})
    found = hashlib.sha256(
        (importlib.resources.files("skimage") / "data" / name).read_bytes()
    ).hexdigest()
    message = f"coffee.png: expected sha256 {'0' * 64}, found {found}; install the versions"
    with pytest.raises(UserError, match=message):
        bundled.download(settings, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bundled_file_that_is_not_there_is_told(skimage: BundledSource, tmp_path: Path) -> None:
    absent = {"absent.png": skimage.photographs["coffee.png"]}
    settings = dataclasses.replace(skimage, photographs=absent)
    with pytest.raises(UserError, match=r"scikit-image has no absent.png; install the versions"):
        bundled.download(settings, tmp_path)
