"""Raw files of cameras, made here by the description of DNG: colours, turning, what is kept."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image as PillowImage

from pipeline.images import files
from pipeline.images.reading import raw
from pipeline.inference.photographs.reading import open_photograph
from pipeline.runtime.errors import UserError
from pipeline.sources.photographs import decode
from tests.inference import test_restore
from tests.inference.test_restore import PHOTOS_ADVICE, UPRIGHT, Desk, Values, smooth

desk = test_restore.desk
pytest.importorskip("rawpy", reason="pip install '.[photos]'")

BLACK, WHITE = 256, 4095
NEUTRAL = np.array([0.5, 1.0, 0.8])
"""What the camera measured of something white."""
FROM_XYZ = np.array([[0.72, -0.21, -0.06], [-0.42, 1.22, 0.21], [-0.06, 0.16, 0.58]])
SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
"""Of IEC 61966-2-1, at its own white."""
PATCHES = np.array([[700, 1200, 900], [1500, 2000, 1200], [900, 2500, 1500], [1200, 1000, 2000]])
SIDE = 32
NOTE = "note: {}: not kept: the values of the sensor, and what describes them"


def mosaic() -> Values:
    """Return flat patches side by side through red, green; green, blue (height, width) uint16."""
    values = np.zeros((2 * SIDE, SIDE * len(PATCHES)), np.uint16)
    for number, (red, green, blue) in enumerate(PATCHES):
        patch = values[:, number * SIDE : (number + 1) * SIDE]
        patch[::2, ::2], patch[1::2, 1::2] = red, blue
        patch[::2, 1::2] = patch[1::2, ::2] = green
    return values


def ratios(values: Values) -> list[int]:
    return [part for value in values.ravel() for part in (round(value * 10_000), 10_000)]


def describing(orientation: int) -> list[Any]:
    """Return tags of DNG (Adobe, Digital Negative Specification 1.4)."""
    return [
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (271, "s", 0, "Maker", True), (272, "s", 0, "Model", True),
        (274, "H", 1, orientation, True),
        (50708, "s", 0, "Maker Model", True),  # UniqueCameraModel
        (50721, "2i", 9, ratios(FROM_XYZ), True),  # ColorMatrix1
        (50728, "2I", 3, ratios(NEUTRAL), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
    ]  # fmt: skip


SENSOR: list[Any] = [
    (33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern
    (50714, "H", 1, BLACK, True), (50717, "H", 1, WHITE, True),
]  # fmt: skip


def dng(orientation: int = 1, further: tuple[Any, ...] = (), values: Values | None = None) -> bytes:
    file = io.BytesIO()
    tags = [*describing(orientation), *SENSOR, *further]
    tifffile.imwrite(file, mosaic() if values is None else values, photometric=32803,
                     metadata=None, extratags=tags)  # fmt: skip
    return file.getvalue()


def with_preview(exif: bytes) -> bytes:
    """Return a DNG as cameras write it: a JPEG first, the sensor's values in a SubIFD."""
    preview, file = io.BytesIO(), io.BytesIO()
    PillowImage.fromarray(smooth(64, 64)).save(preview, "JPEG", exif=exif)
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(iter([preview.getvalue()]), shape=(64, 64, 3), dtype=np.uint8, rowsperstrip=64,
                   photometric=6, compression=8, subfiletype=1, subifds=1, metadata=None,
                   extratags=describing(1))  # fmt: skip
        tiff.write(mosaic(), photometric=32803, metadata=None, extratags=SENSOR)
    # tifffile alone writes no tag of JPEG's (7), but of what is deflated (8)
    deflate, by_jpeg = (struct.pack("<HHIHH", 259, 3, 1, kind, 0) for kind in (8, 7))
    assert file.getvalue().count(deflate) == 1
    return file.getvalue().replace(deflate, by_jpeg)


def by_hand() -> Values:
    """Return the patches as sRGB of 16 bits, (patches, 3).

    As dcraw: the camera's values of white are white, whichever matrix leads from it to sRGB.
    """
    white_balanced = (PATCHES - BLACK) / (WHITE - BLACK) / NEUTRAL
    from_srgb = FROM_XYZ @ SRGB_TO_XYZ
    to_srgb = np.linalg.inv(from_srgb / from_srgb.sum(axis=1, keepdims=True))
    linear = np.clip(white_balanced @ to_srgb.T, 0, 1)
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    encoded: Values = np.where(linear <= 0.0031308, 12.92 * linear, curved) * 65_535
    return encoded


@pytest.mark.parametrize("make", [dng, lambda: with_preview(b"")])
def test_flat_patches_have_the_colours_of_a_calculation_by_hand(desk: Desk, make: Any) -> None:
    (desk.folder / "x.dng").write_bytes(make())
    desk.run("x.dng")
    found = desk.result("x.png")
    assert found.dtype == np.uint16 and found.shape == (2 * SIDE, SIDE * len(PATCHES), 3)
    middles = found[SIDE, SIDE // 2 :: SIDE].astype(int)
    assert np.abs(middles - by_hand()).max() < 40, "of 65,535"
    assert desk.notes == [NOTE.format("x.dng")]


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_orientation(desk: Desk, orientation: int) -> None:
    values = np.random.default_rng(0).integers(BLACK, WHITE, (40, 64)).astype(np.uint16)
    (desk.folder / "1.dng").write_bytes(dng(1, values=values))
    (desk.folder / "x.dng").write_bytes(dng(orientation, values=values))
    desk.run("1.dng", "x.dng")
    assert_array_equal(desk.result("x.png"), UPRIGHT[orientation](desk.result("1.png")))


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("x.tif", b"II*\0"), ("x.orf", b"IIRO"), ("x.rw2", b"IIU\0"), ("x.jpg", b"II*\0")],
)
def test_the_header_decides(desk: Desk, name: str, beginning: bytes) -> None:
    (desk.folder / name).write_bytes(beginning + dng()[4:])
    desk.run(name, "--format", "tiff")
    (path,) = desk.out.iterdir()
    found = tifffile.imread(path)
    assert found.dtype == np.uint16
    assert np.abs(found[SIDE, SIDE // 2 :: SIDE].astype(int) - by_hand()).max() < 40


def test_exif_xmp_and_iptc_are_kept(desk: Desk) -> None:
    xmp, iptc = b"<x:xmpmeta>me</x:xmpmeta>", b"\x1c\x02\x69\x00\x05title"
    blobs = [(700, "B", len(xmp), xmp, True), (33723, "B", len(iptc), iptc, True)]
    place = len(dng(further=(*blobs, ("ExifTag", "I", 1, 0, True))))
    content = dng(6, further=(*blobs, ("ExifTag", "I", 1, place, True)))
    below = struct.pack("<HHHIII", 1, 0x829A, 5, 1, place + 18, 0) + struct.pack("<II", 1, 250)
    (desk.folder / "x.dng").write_bytes(content + below)
    desk.run("x.dng", "--format", "tiff")
    assert desk.notes == [NOTE.format("x.dng")]
    with PillowImage.open(desk.out / "x.tif") as image:
        assert image.tag_v2[271] == "Maker" and image.tag_v2[272] == "Model"  # type: ignore[attr-defined]
        assert image.tag_v2[700] == xmp and image.tag_v2[33723] == iptc  # type: ignore[attr-defined]
        assert image.getexif().get_ifd(0x8769)[0x829A] == 1 / 250
        assert 274 not in image.getexif() and image.size == (2 * SIDE, SIDE * len(PATCHES))


def test_xmp_that_would_develop_the_result_once_more_is_not_kept(desk: Desk) -> None:
    xmp = b'<x:xmpmeta crs:Exposure2012="+1.00"></x:xmpmeta>'
    (desk.folder / "x.dng").write_bytes(dng(further=((700, "B", len(xmp), xmp, True),)))
    desk.run("x.dng")
    assert desk.notes[1:] == ["note: x.dng: not kept: XMP (it says how to develop)"]
    assert b"crs:" not in (desk.out / "x.png").read_bytes()


def test_where_the_file_is_no_tiff_the_preview_has_the_exif_data(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Canon's CR3 and Fujifilm's RAF."""
    tags = PillowImage.Exif()
    tags[0x010F] = "Maker"

    def refuse(file: Any) -> None:
        raise SyntaxError

    (desk.folder / "x.dng").write_bytes(with_preview(tags.tobytes()))
    monkeypatch.setattr(raw, "is_raw", lambda *given: True)
    monkeypatch.setattr(raw, "directory", refuse)
    desk.run("x.dng")
    assert desk.notes[1:] == ["note: x.dng: not kept: EXIF data but for those of the preview"]
    with PillowImage.open(desk.out / "x.png") as image:
        assert image.getexif()[0x010F] == "Maker"


def test_a_white_balance_that_is_guessed_is_told(desk: Desk) -> None:
    as_shot, other = struct.pack("<HHI", 50728, 5, 3), struct.pack("<HHI", 50999, 5, 3)
    assert dng().count(as_shot) == 1
    (desk.folder / "x.dng").write_bytes(dng().replace(as_shot, other))
    desk.run("x.dng")
    assert "x.dng: not kept: white balance (the file names none; LibRaw has" in desk.notes[1]


def test_a_broken_one_is_one_line_and_the_rest_goes_on(desk: Desk) -> None:
    content = dng()
    (desk.folder / "in").mkdir()
    for name, part in {
        "cut.dng": content[: len(content) // 2], "head.dng": content[:200],
        "none.nef": b"MM\0*" + bytes(200), "z.raf": b"FUJIFILMCCD-RAW " + bytes(900),
        "y.cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(300), "text.arw": b"text\n",
    }.items():  # fmt: skip
        (desk.folder / "in" / name).write_bytes(part)
    desk.add("in/a picture.nef", smooth(9, 11), format="TIFF")
    desk.add("in/x.png", smooth(8, 8))
    lines = desk.run("in", status=1).splitlines()
    assert len(lines) == 7 and desk.summary.startswith("1 restored")
    for name in ("cut.dng", "z.raf", "y.cr3", "a picture.nef"):
        start = f"error: in/{name}: a raw file of a camera that LibRaw cannot read ("
        assert any(line.startswith(start) for line in lines)
    assert not list(desk.out.glob("*.partial")) and len(list(desk.out.iterdir())) == 1


def test_without_the_package_it_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "is_installed", lambda package: False)
    (desk.folder / "x.tif").write_bytes(dng())
    (desk.folder / "x.dng").write_bytes(dng())
    assert desk.run("x.tif", "x.dng", status=1).splitlines() == [
        f"error: x.dng: DNG is not read; {PHOTOS_ADVICE}",
        f"error: x.tif: camera raw under the ending .tif; {PHOTOS_ADVICE}",
    ]


def test_it_is_no_training_photograph() -> None:
    with pytest.raises(
        UserError, match=r"x.tif: a raw file .*; develop it into a PNG or TIFF of 8"
    ):
        decode(dng(), "x.tif")
    assert ".dng" not in files.readable_endings() and ".dng" in files.readable_endings(raw=True)


def test_bytes_changed_at_random_do_no_harm(tmp_path: Path) -> None:
    generator, content, path = np.random.default_rng(0), dng(), tmp_path / "x.dng"
    for _ in range(100):
        changed = bytearray(content)
        for place in generator.integers(0, 600, 3):
            changed[place] = generator.integers(256)
        path.write_bytes(bytes(changed))
        try:
            picture = open_photograph(path, "x.dng", 1_000_000)
        except UserError as error:
            assert str(error).startswith("x.dng: ") and "\n" not in str(error)
            continue
        assert picture.form.bits == 16 or picture.form.bits == 8
