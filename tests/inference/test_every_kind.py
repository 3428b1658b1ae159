"""Every kind of photograph that is read comes out as it went in; damaged ones do no harm.

The files are made by tifffile, Pillow and by hand, never by our own writers, and the results are
read by others than our own reader.
"""

import contextlib
import io
import itertools
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pipeline.images.reading.formats import read_header
from pipeline.inference.photographs.listing import Order
from pipeline.inference.photographs.reading import open_photograph
from pipeline.inference.photographs.restore import Handling, restore_photograph
from pipeline.runtime.errors import UserError
from tests.inference.test_restore import UPRIGHT

Values = NDArray[Any]

HEIGHT, WIDTH = 37, 50
ORIENTATION = 0x0112
KINDS = {8: np.uint8, 16: np.uint16, 32: np.float32}
EXTRA = {1: [], 2: ["unassalpha"], 3: [], 4: ["unassalpha"]}


def values_of(bits: int, channels: int) -> Values:
    """Return values of which every one differs from its neighbours, in both bytes."""
    shape = (HEIGHT, WIDTH, channels)
    if bits == 32:
        return np.random.default_rng(0).random(shape, np.float32)
    return np.random.default_rng(0).integers(0, 2**bits, shape).astype(KINDS[bits])


def unchanged(read: Callable[[slice], Any], size: tuple[int, int]) -> Iterator[Any]:
    """Restore with a network that changes nothing, in tiles that overlap, as the real one reads."""
    for top in range(0, size[0], 16):
        yield read(slice(top, min(top + 24, size[0])))[:16]


def restored(path: Path, kind: Any, ending: str, **handling: Any) -> tuple[Path, list[str]]:
    target = path.parent / f"restored{ending}"
    target.unlink(missing_ok=True)
    notes = restore_photograph(Order(path, target, kind), unchanged, Handling(10**6, **handling))
    return target, notes


def tiff(path: Path, values: Values, **options: Any) -> Path:
    channels = values.shape[2]
    planar = options.get("planarconfig") == "separate"
    options = {
        "photometric": "rgb" if channels > 2 else "minisblack",
        "planarconfig": "contig" if channels > 1 else None,
        "extrasamples": EXTRA[channels] or None,
        "metadata": None,
        **options,
    }
    stored = np.moveaxis(values, 2, 0) if planar else values[..., 0] if channels == 1 else values
    tifffile.imwrite(path, stored, **options)
    return path


TIFFS = [
    (bits, channels, planar, tile, compression, order, big)
    for bits, channels, planar, tile, compression, order, big in itertools.product(
        (8, 16, 32), (1, 2, 3, 4), (False, True), (None, (16, 16)), (None, "zlib"), "<>",
        (False, True),
    )
    if channels > 1 or not planar
]  # fmt: skip


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_every_layout_of_a_tiff(bits: int, tmp_path: Path) -> None:
    for _, channels, planar, tile, compression, order, big in (t for t in TIFFS if t[0] == bits):
        values = values_of(bits, channels)
        path = tiff(
            tmp_path / "x.tif", values, tile=tile, compression=compression, byteorder=order,
            bigtiff=big, planarconfig="separate" if planar else None if channels == 1 else "contig",
        )  # fmt: skip
        target, notes = restored(path, "tiff", ".tif")
        found = tifffile.imread(target).reshape(values.shape)
        case = (bits, channels, planar, tile, compression, order, big)
        assert found.dtype == values.dtype and not notes, case
        assert_array_equal(found, values, str(case))


@pytest.mark.parametrize(
    "predictor", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_deflate"]
)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "1", "P"])
def test_compressions_of_libtiff(predictor: str, mode: str, tmp_path: Path) -> None:
    image = PillowImage.fromarray(values_of(8, 4)).convert("RGB").quantize(200) \
        if mode == "P" else PillowImage.fromarray(values_of(8, 4)).convert(mode)  # fmt: skip
    image.save(tmp_path / "x.tif", compression=predictor)
    with PillowImage.open(tmp_path / "x.tif") as reread:
        expected = np.asarray(reread.convert({"1": "L", "P": "RGB"}.get(mode, mode)))
    target, _ = restored(tmp_path / "x.tif", "tiff", ".tif")
    assert_array_equal(tifffile.imread(target), expected)


@pytest.mark.parametrize("top", [255, 65_535])
def test_a_palette_of_old_programs_has_8_bits(top: int, tmp_path: Path) -> None:
    """As libtiff's tiff2rgba does: colours of at most 255 are none of 65535."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    places = values_of(8, 1)[..., 0]
    tifffile.imwrite(tmp_path / "x.tif", places, photometric="palette",
                     colormap=colours * (top // 255), metadata=None)  # fmt: skip
    target, _ = restored(tmp_path / "x.tif", "tiff", ".tif")
    assert_array_equal(tifffile.imread(target), np.moveaxis(colours[:, places], 0, 2))


def test_slices_and_stacks_of_one_directory_are_pictures(tmp_path: Path) -> None:
    slices = np.random.default_rng(0).integers(0, 256, (16, 48, 64)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", slices, volumetric=True, tile=(16, 16, 16), metadata=None)
    with pytest.raises(UserError, match="holds 16 pictures"):
        restored(tmp_path / "x.tif", "tiff", ".tif")
    tifffile.imwrite(tmp_path / "x.tif", slices[0], description="ImageJ=1.54f\nimages=16\n",
                     metadata=None)  # fmt: skip
    with pytest.raises(UserError, match="holds 16 pictures"):
        restored(tmp_path / "x.tif", "tiff", ".tif")


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_several_pages_is_restored_page_by_page(big: bool, tmp_path: Path) -> None:
    pages = [values_of(16, 3), values_of(8, 1)[:20], values_of(32, 3)]
    with tifffile.TiffWriter(tmp_path / "x.tif", bigtiff=big) as file:
        for number, page in enumerate(pages):
            file.write(page if page.shape[2] == 3 else page[..., 0], metadata=None,
                       photometric="rgb" if page.shape[2] == 3 else "minisblack",
                       description=f"page {number}", compression="zlib" if number else None,
                       extratags=[(ORIENTATION, "H", 1, (1, 3, 6)[number], True)])  # fmt: skip
    target, notes = restored(tmp_path / "x.tif", "tiff", ".tif")
    assert not notes
    with tifffile.TiffFile(target) as result:
        assert len(result.pages) == 3
        for number, (page, turn) in enumerate(zip(pages, (1, 3, 6), strict=True)):
            found = result.pages[number].asarray()
            assert found.dtype == page.dtype
            assert_array_equal(found, UPRIGHT[turn](page).squeeze())
            assert result.pages[number].description == f"page {number}"
    with pytest.raises(UserError, match="holds 3 pictures"):
        restored(tmp_path / "x.tif", "png", ".png")


def test_exif_data_of_further_pages_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(2):
            file.write(values_of(8, 3), photometric="rgb", metadata=None,
                       extratags=[("ExifTag", "I", 1, 0, True)])  # fmt: skip
    content = path.read_bytes()
    pointer = struct.pack("<HHI", 0x8769, 4, 1)
    assert content.count(pointer + bytes(4)) == 2
    content = content.replace(pointer + bytes(4), pointer + struct.pack("<I", len(content)))
    path.write_bytes(content + struct.pack("<HHHIII", 1, 0x8827, 3, 1, 100, 0))  # ISO 100
    target, notes = restored(path, "tiff", ".tif")
    assert notes == ["EXIF data of pages behind the first"]
    tags = tifffile.TiffFile(target).pages.first.tags
    assert tags["ExifTag"].value["ISOSpeedRatings"] == 100


@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero(bits: int, tmp_path: Path) -> None:
    values = values_of(bits, 1)
    target, _ = restored(tiff(tmp_path / "x.tif", values, photometric="miniswhite"), "png", ".png")
    shown = np.asarray(PillowImage.open(target)).astype(np.int64)
    assert_array_equal(shown, 2**bits - 1 - values[..., 0].astype(np.int64))


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_multiplied_by_alpha(bits: int, tmp_path: Path) -> None:
    top = 2**bits - 1
    values = values_of(bits, 4)
    alpha = np.maximum(values[..., 3:].astype(np.int64), top // 3)
    multiplied = np.rint(values[..., :3].astype(np.int64) * alpha / top)
    stored = np.concatenate([multiplied, alpha], 2).astype(values.dtype)
    path = tiff(tmp_path / "x.tif", stored, extrasamples=["assocalpha"])
    target, _ = restored(path, "tiff", ".tif")
    found = tifffile.imread(target).astype(np.int64)
    assert_array_equal(found[..., 3], alpha[..., 0])
    assert np.abs(found[..., :3] - values[..., :3]).max() <= 2  # rounded twice
    assert tifffile.TiffFile(target).pages.first.extrasamples == (2,)


def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(values: Values, *chunks: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG made by hand, unfiltered (PNG specification, 5 and 8.2)."""
    height, width, channels = values.shape
    stored = values.astype(">u2") if values.dtype == np.uint16 else values
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4),
                  (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # fmt: skip
    lines = b"".join(
        b"\0" + np.ascontiguousarray(line).tobytes()
        for top, left, down, right in passes
        for line in stored[top::down, left::right]
    )
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, values.itemsize * 8, colour, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(lines))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def png_values(path: Path) -> Values:
    """Return the values of a PNG as libpng reads them: Pillow drops bytes of 16-bit colours."""
    import OpenImageIO as oiio

    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    file = oiio.ImageInput.open(str(path), config)
    assert file is not None
    return np.asarray(file.read_image(file.spec().format))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_png(bits: int, channels: int, interlaced: bool, tmp_path: Path) -> None:
    values = values_of(bits, channels)
    path = tmp_path / "x.png"
    path.write_bytes(png(values, interlaced=interlaced))
    target, notes = restored(path, "png", ".png")
    assert not notes
    found = png_values(target).reshape(values.shape)
    assert found.dtype == values.dtype
    assert_array_equal(found, values)
    as_tiff, _ = restored(path, "tiff", ".tif")
    assert_array_equal(tifffile.imread(as_tiff).reshape(values.shape), values)


@pytest.mark.parametrize("kind", ["tiff", "planar", "tiled", "palette", "png", "jpeg", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_orientation_of_every_container(kind: str, orientation: int, tmp_path: Path) -> None:
    bits = 16 if kind in ("tiff", "planar", "tiled", "png") else 8
    values = values_of(bits, 3)
    path = tmp_path / "x"
    tags = PillowImage.Exif()
    tags[ORIENTATION] = orientation
    if bits == 16 and kind != "png":
        options: dict[str, Any] = {"planar": {"planarconfig": "separate", "compression": "zlib"},
                                   "tiled": {"tile": (16, 16)}}.get(kind, {})  # fmt: skip
        tiff(path, values, extratags=[(ORIENTATION, "H", 1, orientation, True)], **options)
    elif kind == "png":
        path.write_bytes(png(values, chunk(b"eXIf", tags.tobytes()[6:])))
    elif kind == "palette":
        image = PillowImage.fromarray(values).quantize(200)
        values = np.asarray(image.convert("RGB"))
        image.save(path, "TIFF", exif=tags)
    else:
        smooth = np.kron(values[:5, :6] // 2 + 60, np.ones((16, 16, 1))).astype(np.uint8)
        PillowImage.fromarray(smooth).save(path, kind, exif=tags, quality=95)
        with PillowImage.open(path) as image:
            values = np.asarray(image.convert("RGB"))
    target, notes = restored(path, "tiff", ".tif")
    expected = UPRIGHT[orientation](values)
    assert_array_equal(tifffile.imread(target), expected)
    assert not notes
    assert ORIENTATION not in tifffile.TiffFile(target).pages.first.tags
    with path.open("rb") as file:
        assert read_header(file, "x").upright == expected.shape[:2]


def test_float_values_beyond_0_and_1_keep_their_range(tmp_path: Path) -> None:
    values = values_of(32, 3) * 5000 - 1000
    target, _ = restored(tiff(tmp_path / "x.tif", values), "tiff", ".tif")
    np.testing.assert_allclose(tifffile.imread(target), values, atol=0.002)
    broken = values.copy()
    broken[3, 4, 0] = np.nan
    with pytest.raises(UserError, match="values that are not finite"):
        restored(tiff(tmp_path / "x.tif", broken), "tiff", ".tif")
    with pytest.raises(UserError, match="PNG cannot hold float32 values; use --format tiff"):
        restored(tiff(tmp_path / "x.tif", values), "png", ".png")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_white_may_be_zero_beside_alpha(bits: int, byteorder: Any, tmp_path: Path) -> None:
    """Alpha is opaque at its highest all the same (TIFF 6.0, section 18)."""
    values, top = values_of(bits, 2), 2**bits - 1
    path = tiff(tmp_path / "x.tif", values, photometric="miniswhite", byteorder=byteorder)
    target, _ = restored(path, "tiff", ".tif")
    expected = np.stack([top - values[..., 0], values[..., 1]], axis=2)
    assert_array_equal(tifffile.imread(target), expected)
    values[..., 0] = values[..., 0] // 2
    values[..., 1] = top
    path = tiff(path, values, photometric="miniswhite", extrasamples=["assocalpha"])
    target, _ = restored(path, "tiff", ".tif")
    assert_array_equal(tifffile.imread(target)[..., 0], top - values[..., 0])


def test_a_mask_is_no_page_and_a_chain_may_lead_back(tmp_path: Path) -> None:
    values, path = values_of(8, 3), tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(values, photometric="rgb", metadata=None)
        file.write(values[..., 0], photometric="minisblack", subfiletype=1, metadata=None)
    kind, mask = (struct.pack("<HHII", 254, 4, 1, bit) for bit in (1, 4))
    assert path.read_bytes().count(kind) == 1
    path.write_bytes(path.read_bytes().replace(kind, mask))
    target, notes = restored(path, "tiff", ".tif")
    assert_array_equal(tifffile.imread(target), values)
    assert notes == ["transparency mask"]
    content = tiff(path, values).read_bytes()
    (first,) = struct.unpack("<I", content[4:8])
    (count,) = struct.unpack("<H", content[first : first + 2])
    end = first + 2 + 12 * count
    path.write_bytes(content[:end] + content[4:8] + content[end + 4 :])
    target, _ = restored(path, "tiff", ".tif")
    assert_array_equal(tifffile.imread(target), values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: tiff(p, values_of(8, 3).astype(np.uint32)), "unsigned|integer values of 32"),
        (lambda p: tiff(p, values_of(8, 3).astype(np.int16)), "signed integer values of 16 bits"),
        (lambda p: tiff(p, values_of(32, 3).astype(np.float64)), "float values of 64 bits"),
        (lambda p: tiff(p, values_of(32, 3).astype(np.float16)), "float values of 16 bits"),
        (lambda p: tiff(p, values_of(8, 4), photometric="separated", extrasamples=None), "CMYK"),
        (lambda p: tiff(p, values_of(8, 3), photometric="cielab"), "CIELAB colours"),
        (lambda p: PillowImage.fromarray(values_of(8, 3)).convert("YCbCr").save(p, "TIFF"),
         "YCbCr colours without JPEG"),
        (lambda p: PillowImage.fromarray(values_of(8, 3)).save(p, "TIFF", compression="zstd"),
         "compressed by Zstandard"),
        (lambda p: PillowImage.fromarray(values_of(8, 3)).save(p, "TIFF", compression="lzma"),
         "compressed by LZMA"),
        (lambda p: tiff(p, values_of(8, 3), subfiletype=1), "a raw file of a camera"),
    ],
)  # fmt: skip
def test_other_tiffs_are_refused_by_what_they_are(
    make: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "x.tif")
    with pytest.raises(UserError, match=message) as caught:
        restored(tmp_path / "x.tif", "tiff", ".tif")
    assert "damaged" not in str(caught.value) and "\n" not in str(caught.value)


# Damaged files


def seeds() -> dict[str, bytes]:
    """Return one file of every format and of the layouts that are decoded differently."""
    made = {}
    for bits, planar, compression, tile in itertools.product(
        (8, 16), (None, "separate"), (None, "zlib"), (None, (16, 16))
    ):
        file = io.BytesIO()
        values = values_of(bits, 3)
        tifffile.imwrite(file, np.moveaxis(values, 2, 0) if planar else values, photometric="rgb",
                         planarconfig=planar or "contig", compression=compression, tile=tile,
                         metadata=None)  # fmt: skip
        made[f"{bits} {planar} {compression} {tile}.tif"] = file.getvalue()
    for mode, kind, options in (
        ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("P", "TIFF", {}),
        ("1", "TIFF", {"compression": "group4"}), ("RGB", "TIFF", {"compression": "jpeg"}),
        ("RGB", "JPEG", {}), ("RGB", "JPEG", {"progressive": True}), ("L", "JPEG", {}),
        ("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}),
        ("RGB", "BMP", {}), ("L", "BMP", {}), ("P", "PNG", {"transparency": 3}), ("1", "PNG", {}),
    ):  # fmt: skip
        file = io.BytesIO()
        image = PillowImage.fromarray(values_of(8, 4)).convert("RGB" if mode == "P" else mode)
        exif = PillowImage.Exif()
        exif[0x010F], exif[ORIENTATION] = "Maker", 6
        extra = {} if kind == "BMP" else {"exif": exif}
        (image.quantize(60) if mode == "P" else image).save(file, kind, **options, **extra)
        made[f"{mode} {options}.{kind.lower()}"] = file.getvalue()
    for bits, channels in itertools.product((8, 16), (1, 3, 4)):
        made[f"{bits} {channels}.png"] = png(values_of(bits, channels))
    return made


def damaged(content: bytes, others: list[bytes], generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    how = generator.integers(4)
    if how == 0:  # bits anywhere
        for place in generator.integers(0, len(content), 4):
            changed[place] ^= 1 << int(generator.integers(8))
    elif how == 1:  # bytes of the header
        for place in generator.integers(0, min(len(content), 300), 4):
            changed[place] = generator.integers(256)
    elif how == 2:
        del changed[generator.integers(1, len(content)) :]
    else:  # the beginning of another file
        size = int(generator.integers(8, 200))
        changed[:size] = others[generator.integers(len(others))][:size]
    return bytes(changed)


def as_second_reader(content: bytes, path: Path) -> list[Values]:
    """Return what tifffile and Pillow decode, as stored; none if both refuse."""
    found: list[Values] = []
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # whatever it is, it refuses
        warnings.simplefilter("ignore")
        if content[:2] in (b"II", b"MM"):
            with contextlib.suppress(Exception):
                stored = np.asarray(tifffile.imread(path))
                found += [stored, np.moveaxis(stored, 0, -1)]  # planes of colours come first
        with PillowImage.open(io.BytesIO(content)) as image:
            found.append(np.asarray(image))
            found += [np.asarray(image.convert(mode)) for mode in ("RGB", "RGBA", "L", "LA")]
    return found


def same(values: Values, seconds: list[Values], orientation: int) -> bool:
    """Whether one of the second reader's arrays holds these values, turned or not."""
    upper = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values
    return any(
        candidate.size == values.size and np.array_equal(candidate.reshape(values.shape), ours)
        for second in seconds
        for candidate in (second, UPRIGHT[orientation](second))
        for ours in (values, upper)
    )


def test_500_damaged_files_do_no_harm(tmp_path: Path) -> None:
    """None crashes or hangs; what is read is what another reader reads, where one reads it."""
    generator = np.random.default_rng(0)
    contents = seeds()
    names, others = list(contents), list(contents.values())
    path = tmp_path / "x"
    read = 0
    for number in range(500):
        name = names[number % len(names)]
        content = damaged(contents[name], others, generator)
        path.write_bytes(content)
        begun = time.monotonic()
        try:
            picture = open_photograph(path, "x", 10**6)
            values = picture.rows(slice(0, picture.form.height))
        except UserError as error:
            assert str(error).startswith("x: ") and "\n" not in str(error)
            continue
        finally:
            assert time.monotonic() - begun < 10
        read += 1
        assert values.shape == (picture.form.height, picture.form.width, picture.form.channels)
        seconds = as_second_reader(content, path)
        assert not seconds or same(values, seconds, picture.upright.header.orientation), (
            number, name)  # fmt: skip
    assert read > 60, "what is only slightly damaged is read"
