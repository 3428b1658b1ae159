"""EXIF data and pixel density through the restore command, read back with other programs' eyes."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from pipeline.inference.photographs import tiff
from pipeline.inference.photographs.exif import INTEROP, PHOTO, PLACE, Exif
from pipeline.inference.photographs.reading import open_photograph
from tests.inference import test_restore
from tests.inference.test_restore import Desk, smooth

desk = test_restore.desk

ORIENTATION, MAKE, ARTIST = 0x0112, 0x010F, 0x013B
SHORT, RATIONAL, UNDEFINED, SIGNED_RATIONAL, ASCII = 3, 5, 7, 10, 2
EXPOSURE, BIAS, NOTE, COMMENT, WIDE, HIGH = 0x829A, 0x9204, 0x927C, 0x9286, 0xA002, 0xA003
KINDS = {"png": "png", "jpg": "jpeg", "tif": "tiff"}

TAGS = Exif(
    main={MAKE: (ASCII, "Maker"), ARTIST: (ASCII, "Jörg".encode())},
    photo={
        EXPOSURE: (RATIONAL, IFDRational(1, 250)),
        # no sign tells its type
        BIAS: (SIGNED_RATIONAL, IFDRational(1, 3)),
        NOTE: (UNDEFINED, b"\0private\xff"),
        COMMENT: (UNDEFINED, b"ASCII\0\0\0text"),
        WIDE: (SHORT, 48),
        HIGH: (SHORT, 32),
    },
    interop={1: (ASCII, "R98")},
    place={
        1: (ASCII, "N"),
        2: (RATIONAL, (IFDRational(48), IFDRational(8), IFDRational(1234, 100))),
        29: (ASCII, "2026:11:26"),
    },
)
"""What a camera writes, and a name that is not ASCII."""


def add(
    desk: Desk, kind: str, orientation: int = 1, dpi: Any = None, compressed: bool = True
) -> str:
    """Write a photograph of 48 x 32 pixels with these tags."""
    blob = Exif({**TAGS.main, ORIENTATION: (SHORT, orientation)}, *list(vars(TAGS).values())[1:])
    options: dict[str, Any] = {"dpi": dpi} if dpi else {}
    if kind == "tif":
        # what Pillow reads back of it is what it writes: the source has to be another's
        _write_tiff(desk.folder / "x.tif", orientation, dpi, compressed)
    else:
        desk.add(f"x.{kind}", smooth(32, 48), exif=b"Exif\0\0" + blob.packed(), **options)
    return f"x.{kind}"


def _write_tiff(path: Path, orientation: int, dpi: Any, compressed: bool) -> None:
    """Write with tifffile, big-endian, and its EXIF directories by hand."""
    with tifffile.TiffWriter(path, byteorder=">") as file:
        file.write(
            smooth(32, 48), photometric="rgb", compression="zlib" if compressed else None,
            resolution=dpi, resolutionunit="INCH" if dpi else None, metadata=None, software=False,
            extratags=[
                (MAKE, "s", 0, b"Maker", True), (ARTIST, "s", 0, "Jörg".encode(), True),
                (ORIENTATION, "H", 1, orientation, True),
                ("ExifTag", "I", 1, 0, True), ("GPSTag", "I", 1, 0, True),
            ],
        )  # fmt: skip
    content = bytearray(path.read_bytes())
    places = {}
    for tag, group, above in ((INTEROP, TAGS.interop, {}), (PHOTO, TAGS.photo, places),
                              (PLACE, TAGS.place, {})):  # fmt: skip
        content += bytes(len(content) % 2)
        directory = ImageFileDirectory_v2(b"MM\0*\0\0\0\x08", group=tag)
        for name, (kind, value) in group.items():
            directory.tagtype[name] = kind
            directory[name] = value
        if above:
            directory[INTEROP] = above[INTEROP]
        places[tag] = len(content)
        content += directory.tobytes(len(content))
    (first,) = struct.unpack(">I", content[4:8])
    (count,) = struct.unpack(">H", content[first : first + 2])
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        (tag,) = struct.unpack(">H", content[entry : entry + 2])
        if tag in places:
            content[entry + 8 : entry + 12] = struct.pack(">I", places[tag])
    path.write_bytes(content)


def found(path: Path) -> Exif:
    exif = open_photograph(path, path.name, 10**9).form.metadata.exif
    assert exif
    return exif


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", KINDS.values())
def test_every_directory_is_kept_with_its_types(desk: Desk, kind: str, wanted: str) -> None:
    desk.run(add(desk, kind), "--format", wanted)
    (path,) = desk.out.iterdir()
    with PillowImage.open(path) as image:
        exif = image.getexif()
        photo, place, interop = (dict(exif.get_ifd(tag)) for tag in (PHOTO, PLACE, INTEROP))
        assert exif[MAKE] == "Maker"
        assert exif[ARTIST].encode("latin-1") == "Jörg".encode(), "byte by byte"
    photo.pop(INTEROP)
    assert photo == {tag: value for tag, (_, value) in TAGS.photo.items()}
    assert place == {tag: value for tag, (_, value) in TAGS.place.items()}
    assert interop == {1: "R98"}
    types = {tag: one for tag, (one, _) in TAGS.photo.items()}
    assert {tag: one for tag, (one, _) in found(path).photo.items()} == types


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_tiffs_directories_are_what_tifffile_reads(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, big: bool, compressed: bool
) -> None:
    if big:
        monkeypatch.setattr(tiff, "TIFF_CLASSIC_BYTES", 0)
    desk.run(add(desk, "tif", compressed=compressed))
    with tifffile.TiffFile(desk.out / "x.tif") as file:
        assert file.is_bigtiff == big
        tags = file.pages.first.tags
        photo, place = tags["ExifTag"].value, tags["GPSTag"].value
        np.testing.assert_array_equal(file.asarray(), smooth(32, 48))
    assert photo["ExposureTime"] == (1, 250) and photo["ExposureBiasValue"] == (1, 3)
    assert place["GPSLatitude"] == (48, 1, 8, 1, 617, 50)
    assert place["GPSDateStamp"] == "2026:11:26"
    with PillowImage.open(desk.out / "x.tif") as image:
        assert dict(image.getexif().get_ifd(INTEROP)) == {1: "R98"}


@pytest.mark.parametrize("kind", KINDS)
def test_without_exif_data_none_is_made_up(desk: Desk, kind: str) -> None:
    desk.add(f"x.{kind}", smooth(8, 8))
    desk.run(f"x.{kind}")
    metadata = open_photograph(desk.out / f"x.{kind}", "x", 10**9).form.metadata
    assert (metadata.exif, metadata.density) == (None, None)


# Density


@pytest.mark.parametrize("kind", [*KINDS, "bmp"])
@pytest.mark.parametrize("wanted", KINDS.values())
def test_the_density_is_kept(desk: Desk, kind: str, wanted: str) -> None:
    desk.add(f"x.{kind}", smooth(8, 8), dpi=(300, 150))
    desk.run(f"x.{kind}", "--format", wanted)
    (path,) = desk.out.iterdir()
    with PillowImage.open(path) as image:
        assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("orientation", "turned"), [(1, False), (3, False), (6, True), (5, True)])
def test_what_belongs_to_a_side_turns_with_it(
    desk: Desk, kind: str, orientation: int, turned: bool
) -> None:
    desk.run(add(desk, kind, orientation, dpi=(300, 150)))
    with PillowImage.open(desk.out / f"x.{kind}") as image:
        assert image.size == ((32, 48) if turned else (48, 32))
        density = (150, 300) if turned else (300, 150)
        assert image.info["dpi"] == pytest.approx(density, abs=0.02)
        photo = image.getexif().get_ifd(PHOTO)
        assert (photo[WIDE], photo[HIGH]) == image.size


def test_a_density_by_the_centimetre(desk: Desk) -> None:
    tifffile.imwrite(
        "x.tif", smooth(8, 8), photometric="rgb", resolution=(100, 50), resolutionunit="CENTIMETER"
    )
    desk.run("x.tif", "--format", "jpeg")
    with PillowImage.open("out/x.jpg") as image:
        assert image.info["dpi"] == (254, 127)


@pytest.mark.parametrize(
    ("unit", "x", "y"),
    [(1, IFDRational(300), IFDRational(300)), (2, IFDRational(300, 0), IFDRational(300)),
     (2, IFDRational(300), None), (2, IFDRational(10**6), IFDRational(300)),
     (9, IFDRational(300), IFDRational(300))],
    ids=["no unit", "over nothing", "one side", "absurd", "unknown unit"],
)  # fmt: skip
def test_what_is_no_density_is_not_kept(desk: Desk, unit: int, x: Any, y: Any) -> None:
    directory = ImageFileDirectory_v2()
    for tag, value in ((282, x), (283, y), (296, unit)):
        if value is not None:
            directory[tag] = value
    blob = b"Exif\0\0II*\0\x08\0\0\0" + directory.tobytes(8)
    desk.add("x.webp", smooth(8, 8), exif=blob)
    desk.run("x.webp")
    with PillowImage.open("out/x.png") as image:
        assert "dpi" not in image.info


def test_exif_data_that_a_jpeg_cannot_hold_is_told(desk: Desk) -> None:
    exif = Exif({}, {NOTE: (UNDEFINED, bytes(70_000))}, {}, {})
    desk.add("x.png", smooth(8, 8), exif=b"Exif\0\0" + exif.packed())
    assert "x.png: JPEG cannot hold it" in desk.run("x.png", "--format", "jpeg", status=1)
    desk.run("x.png", "--format", "tiff")
    assert found(desk.out / "x.tif").photo[NOTE] == (UNDEFINED, bytes(70_000))
