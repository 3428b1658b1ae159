"""Sources: bytes against the wheel, decoding against pixels made by hand, mistakes of users."""

import dataclasses
import hashlib
import importlib.resources
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image
from skimage.data._registry import registry

from pipeline.config.read import check
from pipeline.config.sources import (
    BundledPhotograph,
    BundledSource,
    Crops,
    FolderSource,
    PairFolders,
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
        (b"This is a text.\n", "not an image; expected PNG, JPEG, TIFF, BMP or WebP"),
        (b"<svg></svg>", "SVG under the ending .png; save it as TIFF, PNG or JPEG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC under the ending .png"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF under the ending .png"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 under the ending .png"),
        (b"GIF89a", "GIF under the ending .png"),
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


# Photographs of one's own


class Own:
    """A user's folder, with two clean images and one real one to begin with."""

    def __init__(self, location: Path, raw: Path, pixels: Callable[..., Pixels]) -> None:
        self.location, self.raw, self.pixels = location, raw, pixels
        self.degraded: str | None = None
        self.skip, self.names = False, ("{}", "{}")
        for seed, name in enumerate(["clean/a.png", "clean/b.png", "real/r.png"]):
            self.add(name, seed)

    def add(
        self, name: str, seed: int = 0, height: int = 10, width: int = 12, **options: Any
    ) -> Path:
        path = self.location / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels(seed, height, width)).save(path, **options)
        return path

    def settings(self, **test: tuple[str, str]) -> FolderSource:
        pairs = {name: PairFolders(*folders) for name, folders in test.items()}
        where = str(self.location)
        return FolderSource(
            "folder", where, "own", "clean", self.degraded, "real", pairs, None, self.skip,
            *self.names, WHOLE,
        )  # fmt: skip

    def download(self, **test: tuple[str, str]) -> list[Any]:
        folder.download(self.settings(**test), self.raw)
        return folder.photographs(self.settings(**test), self.raw)

    def refused(self, **test: tuple[str, str]) -> str:
        with pytest.raises(UserError) as caught:
            self.download(**test)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def own(tmp_path: Path, pixels: Callable[..., Pixels]) -> Own:
    return Own(tmp_path / "photographs", tmp_path / "raw", pixels)


def test_folders_become_splits(own: Own) -> None:
    for seed, name in enumerate(["x.png", "deep/y.png"], start=10):
        own.add(f"noisy/{name}", seed)
        own.add(f"truth/{name}", seed + 10)
    listed = own.download(evening=("noisy", "truth"))
    found = {(item.split, item.id, item.scene, item.data_set) for item in listed}
    assert found == {
        ("synthetic", "a", "a", "own clean images"),
        ("synthetic", "b", "b", "own clean images"),
        ("real", "r", "r", "own photographs"),
        ("test", "evening/x", "evening/x", "evening"),
        ("test", "evening/deep/y", "evening/deep/y", "evening"),
    }
    by_id = {item.id: item for item in listed}
    assert by_id["a"].degraded is None and by_id["r"].clean is None
    assert_array_equal(by_id["a"].clean.pixels(), own.pixels(0, 10, 12))
    assert_array_equal(by_id["r"].degraded.pixels(), own.pixels(2, 10, 12))
    assert_array_equal(by_id["evening/deep/y"].degraded.pixels(), own.pixels(11, 10, 12))
    assert_array_equal(by_id["evening/deep/y"].clean.pixels(), own.pixels(21, 10, 12))


def test_the_archive_holds_the_users_bytes_whatever_their_dates(own: Own) -> None:
    own.download()
    first = (own.raw / ARCHIVE).read_bytes()
    os.utime(own.location / "clean" / "a.png", (1, 1))
    own.download()
    assert (own.raw / ARCHIVE).read_bytes() == first
    with zipfile.ZipFile(own.raw / ARCHIVE) as archive:
        assert archive.namelist() == ["clean/a.png", "clean/b.png", "real/r.png"]
        kept = (own.location / "clean" / "a.png").read_bytes()
        assert archive.read("clean/a.png") == kept


def test_nested_folders_and_mixed_formats(own: Own) -> None:
    for name in ("c.JPG", "d.jpeg", "e.TIF", "f.tiff", "g.bmp", "h.WebP", "in/side/a.Png"):
        own.add(f"clean/{name}")
    own.add("clean/two.dots.png")
    listed = own.download()
    ids = {item.id for item in listed if item.split == "synthetic"}
    assert ids == {"a", "b", "c", "d", "e", "f", "g", "h", "in/side/a", "two.dots"}
    for item in listed:
        shown = item.clean or item.degraded
        assert shown.size() == shown.pixels().shape[:2] == (10, 12)


def test_other_files_are_left_out(own: Own) -> None:
    (own.location / "clean" / "notes.txt").write_text("not an image")
    (own.location / "clean" / "Thumbs.db").write_bytes(b"\0")
    (own.location / "clean" / ".DS_Store").write_bytes(b"\0")
    (own.location / "clean" / "folder.png").mkdir()
    (own.location / "elsewhere").mkdir()
    assert {item.id for item in own.download() if item.split == "synthetic"} == {"a", "b"}


def test_photographs_and_folders_that_are_not_read_are_told(
    own: Own, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("IMG_1.HEIC", "IMG_2.heic", "IMG_3.dng", "notes.txt", "._IMG_1.HEIC"):
        (own.location / "real" / name).write_bytes(b"x")
    own.add("elsewhere/z.png")
    linked = own.location / "clean" / "linked"
    linked.symlink_to(own.location / "elsewhere")
    assert {item.id for item in own.download() if item.split == "synthetic"} == {"a", "b"}
    told = capfd.readouterr().err
    assert f"{own.location / 'real'}: left out 2 HEIC, 1 DNG, which are not read; save" in told
    assert f"left out {linked}: a link to a folder, in which DVC sees no change" in told
    assert told.count("left out") == 2


def test_without_test_pairs_the_real_ones_are_shown_unscored(own: Own) -> None:
    own.add("real/s.png", 5)
    test = [item for item in own.download() if item.split == "test"]
    assert {item.id for item in test} == {"unscored/r", "unscored/s"}
    assert all(item.clean is None for item in test)
    assert {item.data_set for item in test} == {folder.UNSCORED}
    shown = {item.id: item.degraded.pixels() for item in test}
    assert_array_equal(shown["unscored/s"], own.pixels(5, 10, 12))


def test_synthetic_pairs_of_ones_own(own: Own) -> None:
    own.degraded = "blurred"
    own.add("blurred/a.png", 5)
    assert "'b' has no degraded partner" in own.refused()
    own.add("blurred/b.png", 6)
    listed = [photograph for photograph in own.download() if photograph.split == "synthetic"]
    assert [photograph.id for photograph in listed] == ["a", "b"]
    assert np.array_equal(listed[0].degraded.pixels(), own.pixels(5, 10, 12))
    assert np.array_equal(listed[0].clean.pixels(), own.pixels(0, 10, 12))


def test_no_location_is_told(own: Own) -> None:
    own.location.rename(own.location.with_name("moved"))
    assert str(own.location) in own.refused()
    own.location.write_text("a file")
    assert "is not a folder" in own.refused()


def test_a_missing_or_empty_folder_is_told(own: Own) -> None:
    for path in (own.location / "real").iterdir():
        path.rename(path.with_suffix(".txt"))
    assert own.refused().startswith(f"{own.location / 'real'}: no image found; expected files end")
    (own.location / "real").rename(own.location / "reel")
    assert own.refused().startswith(f"{own.location / 'real'}: no such folder")
    assert not own.raw.exists()


def test_two_images_of_one_name_are_told(own: Own) -> None:
    path = own.add("clean/a.jpg")
    message = own.refused()
    assert str(path.parent) in message and "a.png" in message and "a.jpg" in message


@pytest.mark.parametrize(
    ("name", "lacking"), [("noisy/y.png", "clean"), ("truth/y.png", "degraded")]
)
def test_a_missing_partner_is_told(own: Own, name: str, lacking: str) -> None:
    for present in ("noisy/x.png", "truth/x.jpg", name):
        own.add(present, 9)
    message = own.refused(evening=("noisy", "truth"))
    assert message.startswith(f"test set 'evening': 'y' has no {lacking} partner")


def test_partners_of_two_sizes_are_told(own: Own) -> None:
    own.add("noisy/x.png", 9, height=10, width=12)
    own.add("truth/x.png", 9, height=12, width=10)
    message = own.refused(evening=("noisy", "truth"))
    assert "'x' is (10, 12) (height, width) degraded but (12, 10) clean" in message


def test_partners_are_compared_as_shown(own: Own) -> None:
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    own.add("noisy/x.jpg", height=10, width=12, exif=tags)
    own.add("truth/x.png", height=12, width=10)
    assert any(item.id == "evening/x" for item in own.download(evening=("noisy", "truth")))


def test_an_unreadable_image_is_named_before_anything_is_kept(own: Own) -> None:
    path = own.add("real/broken.png", height=60, width=80)
    for content in (path.read_bytes()[:5000], b"a text", b""):
        path.write_bytes(content)
        told = own.refused()
        assert told.startswith(f"{path}: ")
        assert told.endswith("; sources.raw.skip_unreadable=true leaves it out of training")
        assert not own.raw.exists()


def test_unreadable_training_images_can_be_left_out(
    own: Own, capfd: pytest.CaptureFixture[str]
) -> None:
    own.skip, own.degraded = True, "blurred"
    for number in range(40):
        own.add(f"many/{number}.png", number)
        own.add(f"clean/n{number}.png", number)
        own.add(f"blurred/n{number}.png", number + 1)
    for name in "ab":
        own.add(f"blurred/{name}.png")
    bad = [own.location / name for name in ("real/r.png", "clean/n7.png", "blurred/n9.png")]
    own.add("real/good.png")
    for path in bad:
        path.write_bytes(path.read_bytes()[:60])
    listed = own.download()
    synthetic = {item.id for item in listed if item.split == "synthetic"}
    assert synthetic == {"a", "b", *(f"n{n}" for n in range(40) if n not in (7, 9))}
    assert {item.id for item in listed if item.split == "real"} == {"good"}
    told = capfd.readouterr().err
    assert all(f"left out {path}: damaged image" in told for path in bad)
    assert f"left out 3 of {2 * 42 + 2} images" in told


def test_an_unreadable_test_image_is_never_left_out(own: Own) -> None:
    own.skip = True
    own.add("noisy/x.png")
    own.add("truth/x.png").write_bytes(b"no image")
    told = own.refused(evening=("noisy", "truth"))
    assert "x.png: not an image" in told and "skip_unreadable" not in told


def test_thousands_of_files_and_one_bad_one(own: Own) -> None:
    for number in range(2000):
        own.add(f"clean/{number // 100}/{number}.png", number % 7, 4, 4)
    path = own.location / "clean" / "13" / "1342.png"
    path.write_bytes(path.read_bytes()[:45])
    assert own.refused().startswith(f"{path}: damaged image")
    path.unlink()
    assert len(own.download()) == 2 + 1999 + 1 + 1


def test_a_file_name_that_is_no_unicode_is_told(own: Own) -> None:
    """As on a memory card of an old camera: 'café.png' in Latin-1."""
    path = own.location / "real" / os.fsdecode(b"caf\xe9.png")
    try:
        path.write_bytes((own.location / "real" / "r.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert "caf" in own.refused()


# What is tested must not be seen in training


@pytest.mark.parametrize("place", ["clean", "real"])
@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_a_test_image_that_is_a_training_image_is_refused(
    own: Own, place: str, ending: str
) -> None:
    """The same pixels, whether or not the bytes are the same."""
    own.add("noisy/x.png", 20)
    own.add("truth/x.png", 21)
    own.add(f"{place}/other{ending}", 21)
    told = own.refused(evening=("noisy", "truth"))
    assert told.startswith("1 test images are training images as well (")
    assert f"truth/x.png = {own.location}/{place}/other{ending}" in told
    assert not own.raw.exists()


def test_copies_among_clean_images_are_counted(own: Own, capfd: pytest.CaptureFixture[str]) -> None:
    own.add("clean/again.bmp", 0)
    own.download()
    assert "1 clean images are copies of others" in capfd.readouterr().err


def test_all_missing_partners_are_named_at_once(own: Own) -> None:
    for seed, name in enumerate(["noisy/a.png", "noisy/b.png", "truth/c.png"], start=30):
        own.add(name, seed)
    told = own.refused(evening=("noisy", "truth"))
    for part in ("'a' has no clean", "'b' has no clean", "'c' has no degraded"):
        assert part in told


def test_pairs_whose_names_differ_by_a_word(own: Own, capfd: pytest.CaptureFixture[str]) -> None:
    own.names = ("{}_noisy", "{}_clean")
    for seed, name in enumerate(["x_noisy", "x_clean", "in/y_noisy", "in/y_clean"], start=40):
        own.add(f"both/{name}.png", seed)
    listed = [item for item in own.download(evening=("both", "both")) if item.split == "test"]
    assert {item.id for item in listed} == {"evening/x", "evening/in/y"}
    by_id = {item.id: item for item in listed}
    assert_array_equal(by_id["evening/in/y"].degraded.pixels(), own.pixels(42, 10, 12))
    assert_array_equal(by_id["evening/in/y"].clean.pixels(), own.pixels(43, 10, 12))
    assert "left out 2 images whose names are not as '{}_noisy' says" in capfd.readouterr().err
    own.names = ("noisy", "{}")
    assert "found the name 'noisy', expected one with {} in it" in own.refused(e=("both", "both"))


# The same folders and kinds as the command restore takes


def test_hidden_folders_thumbnails_and_trash_are_left_out(
    own: Own, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in (".thumbnails/t.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", ".Trash-1000/x.png",
                 "__MACOSX/b.png", "in/.picasaoriginals/c.png"):  # fmt: skip
        own.add(f"real/{name}", 50)
    (own.location / "real" / "dead.png").symlink_to("nowhere")
    own.add("real/scan.jfif", 51, format="JPEG")
    listed = own.download()
    assert {item.id for item in listed if item.split == "real"} == {"r", "scan"}
    told = capfd.readouterr().err
    assert "left out 5 folders that are hidden, thumbnails or trash (.Trash-1000" in told
    assert "dead.png: a link that leads nowhere" in told


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_planar_tiff_of_16_bits_is_no_training_image(compression: str | None) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (3, 8, 9)).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="rgb", planarconfig="separate",
                     compression=compression)  # fmt: skip
    with pytest.raises(UserError, match=r"x.tif: more than 8 bits"):
        decode(file.getvalue(), "x.tif")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_several_pictures_in_one_file_are_refused(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (9, 9, 9))
    content = encoded(first, kind, save_all=True, append_images=[second])
    with pytest.raises(UserError, match="x: holds 2 pictures"):
        decode(content, "x")
