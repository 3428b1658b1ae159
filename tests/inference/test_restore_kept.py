"""What restore keeps beside the pixels, what it says is gone, and the options of the command."""

import base64
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image as PillowImage
from PIL import ImageCms

from pipeline.inference.photographs.colours import colours_of
from pipeline.inference.photographs.metadata import Metadata
from pipeline.inference.photographs.reading import Form
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing
from tests.inference import test_restore
from tests.inference.test_every_kind import chunk, png
from tests.inference.test_restore import ROOT, SRGB, Desk, random_values, save_model, smooth

desk = test_restore.desk

XMP = b'<x:xmpmeta><rdf tiff:Orientation="6" xmp:Rating="5">me</rdf></x:xmpmeta>'
IPTC = b"\x1c\x02\x69\x00\x05title"
PHOTOSHOP = (b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
             + b"8BIM\x03\xed\0\0\0\0\0\0")  # fmt: skip


def jpeg(*segments: tuple[int, bytes], behind: bytes = b"") -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(smooth(16, 24)).save(file, "JPEG", quality=95)
    content = file.getvalue()
    made = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part for marker, part in segments
    )
    return content[:2] + made + content[2:] + behind


def exif_of_one(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return (b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", tag, kind, count)
            + value.ljust(4, b"\0") + bytes(4))  # fmt: skip


# Odd descriptions never keep a picture from being restored


@pytest.mark.parametrize(
    ("exif", "note"),
    [
        (b"Exif\0\0II*\0", "EXIF (damaged)"),
        (b"Exif\0\0This_is_not_valid_EXIF_data", "EXIF (damaged)"),
        (exif_of_one(0x112, 2, 4, b"top\0"), "orientation (not a number from 1 to 8)"),
        (exif_of_one(0x112, 1, 1, b"\1"), "orientation (not a number from 1 to 8)"),
        (exif_of_one(0x112, 7, 1, b"\6"), "orientation (not a number from 1 to 8)"),
        (exif_of_one(0x112, 3, 1, b"\x09"), "orientation (not a number from 1 to 8)"),
        (b"Exif\0\0MM\0*\xff\xff\xff\xf0", "EXIF (damaged)"),
        (exif_of_one(0x10F, 2, 6, b"\xff\xff")[:-8], "EXIF (damaged)"),  # ends inside its tag
        (exif_of_one(0x10F, 2, 60, b"\xff\xff"), "EXIF (damaged)"),  # its value lies beyond
    ],
)
def test_odd_exif_data_is_dropped_with_a_line(desk: Desk, exif: bytes, note: str) -> None:
    (desk.folder / "x.jpg").write_bytes(jpeg((0xE1, exif)))
    desk.run("x.jpg")
    assert desk.notes == [f"note: x.jpg: not kept: {note}"]
    with PillowImage.open("x.jpg") as given:
        assert np.abs(desk.result("x.jpg").astype(int) - np.asarray(given)).max() <= 3


@pytest.mark.parametrize(
    ("part", "note"),
    [
        (chunk(b"eXIf", b"nonsense"), "EXIF (damaged)"),
        (chunk(b"tEXt", b"Title\0hi")[:-1] + b"?", "tEXt (wrong checksum)"),
        (chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB))[:-1] + b"?", "iCCP (wrong checksum)"),
        (chunk(b"iCCP", b"x\0\0nonsense"), "ICC profile (damaged)"),
        (chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB[:-9])), "ICC profile (damaged)"),
        (chunk(b"cICP", b"\1"), "cICP (damaged)"),
        (chunk(b"caBX", b"jumb"), "content credentials (C2PA)"),
        (chunk(b"bKGD", bytes(6)), "bKGD"),
        (chunk(b"prVt", b"of one program"), "prVt"),
        (chunk(b"pHYs", b"\0"), "pHYs"),
        (chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(100_000_000))), "ICC profile (damaged)"),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_an_odd_chunk_is_dropped_with_a_line(desk: Desk, part: bytes, note: str, bits: int) -> None:
    values = random_values(9, 11, 3, bits)
    (desk.folder / "x.png").write_bytes(png(values, part))
    desk.run("x.png")
    assert desk.notes == [f"note: x.png: not kept: {note}"]
    assert_array_equal(desk.result("x.png"), values)


# Kept


@pytest.mark.parametrize("wanted", ["jpeg", "tiff", "png", "webp"])
def test_xmp_is_kept_upright(desk: Desk, wanted: str) -> None:
    (desk.folder / "x.jpg").write_bytes(jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)))
    desk.run("x.jpg", "--format", wanted)
    (path,) = desk.out.iterdir()
    with PillowImage.open(path) as image:
        image.load()
        assert image.size == (16, 24), "turned as its XMP says"
        found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        found = image.tag_v2[700] if wanted == "tiff" else found  # type: ignore[attr-defined]
    expected = XMP.replace(b'Orientation="6"', b'Orientation="1"')
    assert (found.encode() if isinstance(found, str) else found) == expected


@pytest.mark.parametrize("wanted", ["jpeg", "tiff", "png"])
def test_iptc_is_kept(desk: Desk, wanted: str) -> None:
    (desk.folder / "x.jpg").write_bytes(jpeg((0xED, PHOTOSHOP), (0xFE, b"a comment")))
    desk.run("x.jpg", "--format", wanted)
    (path,) = desk.out.iterdir()
    with PillowImage.open(path) as image:
        if wanted == "jpeg":
            assert image.info["photoshop"][0x0404] == IPTC
            assert image.info["comment"] == b"a comment" and not desk.notes
        else:
            if wanted == "png":
                assert IPTC.hex() in image.info["Raw profile type iptc"]
            else:
                assert image.tag_v2[33723] == IPTC  # type: ignore[attr-defined]
            assert desk.notes == ["note: x.jpg: not kept: JPEG comment"]


def text_of_iptc(held: bytes, name: str = "iptc") -> bytes:
    """Return the text as ImageMagick writes it: name, number of bytes, 36 bytes a line."""
    lines = "".join(held[at : at + 36].hex() + "\n" for at in range(0, len(held), 36))
    return f"\n{name}\n{len(held):8d}\n{lines}".encode()


@pytest.mark.parametrize(
    "part",
    [
        chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text_of_iptc(PHOTOSHOP[14:]))),
        chunk(b"tEXt", b"Raw profile type 8bim\0" + text_of_iptc(PHOTOSHOP[14:], "8bim")),
        chunk(b"zTXt", b"Raw profile type iptc\0\0"
              + zlib.compress(text_of_iptc(IPTC, "IPTC profile"))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wanted", ["png", "tiff", "jpeg", "webp"])
def test_iptc_of_a_png_is_kept(desk: Desk, part: bytes, wanted: str) -> None:
    (desk.folder / "x.png").write_bytes(png(random_values(9, 11, 3, 8), part))
    desk.run("x.png", "--format", wanted)
    (path,) = desk.out.iterdir()
    with PillowImage.open(path) as image:
        if wanted == "png":
            # Pillow inflates the text; the record is the only one of Photoshop's resources
            text = image.info["Raw profile type iptc"]
            name, size, *lines = text.strip("\n").split("\n")
            held = bytes.fromhex("".join(lines))
            assert name == "iptc" and int(size) == len(held)
            head = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC))
            assert held == head + IPTC + bytes(len(IPTC) % 2)
            assert path.read_bytes().count(b"Raw profile type") == 1
        elif wanted == "tiff":
            assert image.tag_v2[33723] == IPTC  # type: ignore[attr-defined]
        elif wanted == "jpeg":
            assert image.info["photoshop"][0x0404] == IPTC
    assert desk.notes == (["note: x.png: not kept: IPTC"] if wanted == "webp" else [])


@pytest.mark.parametrize("text", [b"", b"\niptc\n  3\n1c02", b"\niptc\n 1\nxx", b"iptc 2 1c02"])
def test_a_text_that_only_claims_to_be_iptc_stays_a_text(desk: Desk, text: bytes) -> None:
    part = chunk(b"tEXt", b"Raw profile type iptc\0" + text)
    (desk.folder / "x.png").write_bytes(png(random_values(9, 11, 3, 8), part))
    desk.run("x.png")
    assert (desk.out / "x.png").read_bytes().count(part) == 1 and not desk.notes


KEPT = {
    b"cICP": bytes([9, 16, 0, 1]),
    b"mDCV": bytes(range(24)),
    b"cLLI": bytes(range(8)),
    b"gAMA": struct.pack(">I", 45_455),
    b"sCAL": b"\x010.001\x000.002",
    b"oFFs": bytes(9),
    b"tEXt": b"Copyright\0me",
    b"zTXt": b"parameters\0\0" + zlib.compress(b"steps: 20"),
    b"iTXt": "Title\0\0\0de\0Titel\0Grüße".encode(),
}


def test_chunks_of_a_png_are_kept_byte_by_byte(desk: Desk) -> None:
    parts = [chunk(name, content) for name, content in KEPT.items()]
    (desk.folder / "x.png").write_bytes(png(random_values(9, 11, 3, 16), *parts))
    desk.run("x.png")
    content = (desk.out / "x.png").read_bytes()
    assert not desk.notes
    for part in parts:
        assert content.count(part) == 1 and content.index(part) < content.index(b"IDAT")
    desk.run("x.png", "--format", "tiff")
    assert desk.notes == [
        "note: x.png: not kept: cICP, cLLI, gAMA, iTXt, mDCV, oFFs, sCAL, tEXt, zTXt"
    ]


def test_a_pixel_scale_without_unit_is_kept(desk: Desk) -> None:
    """As ImageJ writes it: pixels a micrometre, which its description names."""
    tifffile.imwrite("x.tif", random_values(9, 8, 1, 16)[..., 0], imagej=True,
                     resolution=(6.25, 3.5), metadata={"unit": "um"})  # fmt: skip
    desk.run("x.tif")
    with tifffile.TiffFile(desk.out / "x.tif") as file:
        tags = file.pages.first.tags
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == 6.25
        assert tags["ResolutionUnit"].value == 1
        assert "unit=um" in tags["ImageDescription"].value
    desk.run("x.tif", "--format", "png")
    assert "note: x.tif: not kept: pixel scale without unit" in desk.notes, (
        "6.25 is no whole number"
    )


def test_a_density_that_is_no_number_is_left_out(desk: Desk) -> None:
    values = random_values(9, 8, 1, 16)[..., 0]
    tifffile.imwrite("x.tif", values, resolution=(3, 3), resolutionunit="NONE", metadata=None)
    content = (desk.folder / "x.tif").read_bytes()
    assert content.count(struct.pack("<II", 3, 1)) == 2
    for numbers in ((0, 0), (7, 0), (2**32 - 1, 1)):
        changed = content.replace(struct.pack("<II", 3, 1), struct.pack("<II", *numbers))
        (desk.folder / "x.tif").write_bytes(changed)
        for wanted in ("tiff", "png"):
            desk.run("x.tif", "--format", wanted, "--overwrite")
            assert_array_equal(
                desk.result("x.tif" if wanted == "tiff" else "x.png")[..., 0], values
            )


# Not kept, and said


@pytest.mark.parametrize(
    ("segments", "behind", "notes"),
    [
        ([(0xE2, b"MPF\0rest")], b"", ["gain map or other further pictures (MPF)"]),
        ([(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version='1'/>"), (0xE2, b"MPF\0")], b"",
         ["gain map", "XMP (it describes what is not kept)"]),
        ([(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x Camera:MotionPhoto='1'/>")], b"\0\0ftypmp42",
         ["video of a motion photo", "XMP (it describes what is not kept)"]),
        ([], b"\0\0\0\x18ftypmp42", ["data behind the picture"]),
        ([], b"\xff\xd8 a whole second picture \xff\xd9", ["data behind the picture"]),
        ([], bytes(64), []),
        ([(0xEB, b"JP\0\1\0\0\0\1jumbc2pa")], b"", ["content credentials (C2PA)"]),
        ([(0xE3, b"Meta\0")], b"", ["APP3 (Meta)"]),
        ([(0xE2, b"FPXR\0")], b"", ["APP2 (FPXR)"]),
        ([(0xE2, b"urn:iso:std:iso:ts:21496:-1\0"), (0xE2, b"MPF\0")], b"", ["gain map"]),
        ([(0xE1, b"exif\0\0MM")], b"", ["APP1 (exif)"]),
        ([(0xE1, exif_of_one(0x10F, 2, 4, b"me\0\0")), (0xE1, b"Exif\0\0more")], b"",
         ["APP1 (Exif)"]),
        ([(0xED, PHOTOSHOP[:26])], b"", ["IPTC (damaged)"]),
        ([(0xE2, b"ICC_PROFILE\0\1\2" + SRGB[:300])], b"", ["ICC profile (damaged)"]),
    ],
)  # fmt: skip
def test_what_lies_behind_a_jpeg_is_named(
    desk: Desk, segments: Any, behind: bytes, notes: list[str]
) -> None:
    (desk.folder / "x.jpg").write_bytes(jpeg(*segments, behind=behind))
    desk.run("x.jpg")
    assert desk.notes == [f"note: x.jpg: not kept: {note}" for note in notes]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_fifth_channel_and_a_thumbnail_are_named(desk: Desk, bits: int) -> None:
    values = random_values(9, 8, 5, bits)
    with tifffile.TiffWriter("x.tif") as file:
        file.write(values, photometric="rgb", extrasamples=["unassalpha", "unspecified"],
                   metadata=None)  # fmt: skip
        file.write(values[::2, ::2, :3], photometric="rgb", subfiletype=1, metadata=None)
    desk.run("x.tif")
    assert desk.notes == ["note: x.tif: not kept: 1 extra channel",
                          "note: x.tif: not kept: smaller versions of the picture"]  # fmt: skip
    assert_array_equal(tifffile.imread(desk.out / "x.tif"), values[..., :4])


def test_folders_of_the_system_are_left_alone(desk: Desk) -> None:
    for name in ("a.jpg", ".thumbnails/t.jpg", "@eaDir/a.jpg/T.jpg", ".Trash-1/x.jpg",
                 "__MACOSX/b.jpg", "RECYCLER/x.jpg", "Smart Previews.lrdata/p.jpg",
                 "Network Trash Folder/x.jpg", "in/.picasaoriginals/a.jpg", "b.jfif",
                 "c.JPE"):  # fmt: skip
        (desk.folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (desk.folder / "in" / name).write_bytes(jpeg())
    desk.run("in")
    assert {path.name for path in desk.out.rglob("*.*")} == {"a.jpg", "b.jfif", "c.JPE"}
    assert "8 folders of hidden files, thumbnails or trash left alone (.Trash-1" in desk.summary
    assert PillowImage.open(desk.out / "b.jfif").format == "JPEG"


# Names


@pytest.mark.parametrize("name", ["写" * 83 + ".jpg", "n" * 251 + ".png"])
def test_names_of_255_bytes(desk: Desk, name: str) -> None:
    desk.add(name, smooth(8, 8))
    desk.run(name)
    assert (desk.out / name).is_file()


def test_two_writers_of_one_name_each_write_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(FileExistsError), replacing(path, exclusive=True) as first:
        first.write_text("first")
        with replacing(path, exclusive=True) as second:
            second.write_text("second")
            assert first != second
    assert path.read_text() == "second" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def first_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file system without links, such as exFAT."""

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)


@pytest.mark.usefixtures("first_wins")
def test_nothing_is_replaced_where_there_are_no_links(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with replacing(path, exclusive=True) as partial:
        partial.write_text("first")
    with pytest.raises(FileExistsError), replacing(path, exclusive=True) as partial:
        partial.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_result_that_appears_meanwhile_is_not_replaced(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where IMG.JPG and IMG.jpg are one name."""
    desk.add("x.png", smooth(8, 8))
    monkeypatch.setattr(os.path, "lexists", lambda path: Path(path).name == "x.png" and
                        Path(path).parent != desk.out)  # fmt: skip
    desk.out.mkdir()
    (desk.out / "x.png").write_text("mine")
    assert "x.png is there already" in desk.run("x.png", status=1)
    assert (desk.out / "x.png").read_text() == "mine"


def test_a_folder_in_the_place_of_a_result_is_named(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    (desk.out / "x.png").mkdir(parents=True)
    assert f"{desk.out}/x.png is a folder" in desk.run("x.png", "--overwrite", status=1)


# Options


def test_strength_mixes_with_the_photograph(desk: Desk) -> None:
    values = np.full((40, 33, 4), 100, np.uint8)
    desk.add("x.png", values)
    brighter = save_model(desk.folder / "brighter", last=0.2)
    for strength, expected in ((0, 100), (0.25, 113), (1, 151)):
        desk.run("x.png", "--strength", strength, "--overwrite", "--tile", 32, "--overlap", 8,
                 model=brighter)  # fmt: skip
        assert (desk.result("x.png")[..., :3] == expected).all()


def test_models_follow_each_other(desk: Desk) -> None:
    values = random_values(90, 71, 2, 16)
    values[..., 0] //= 4
    test_restore.written(desk.folder / "x.png", values)
    first = save_model(desk.folder / "first", last=0.5)
    second = save_model(desk.folder / "second", last=-0.25)
    desk.run("x.png", "--model", first, "--model", second, "--tile", 32, "--overlap", 8)
    found = desk.result("x.png")
    assert np.abs(found[..., 0].astype(int) - values[..., 0] - 65535 / 4).max() <= 2
    assert_array_equal(found[..., 1], values[..., 1])


def test_results_of_before_can_be_skipped(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    desk.add("y.png", smooth(8, 8))
    desk.run("x.png")
    before = (desk.out / "x.png").stat().st_ino
    desk.run("x.png", "y.png", "--skip-existing")
    assert desk.summary.startswith("1 restored") and ", 1 were there already" in desk.summary
    assert (desk.out / "x.png").stat().st_ino == before
    with pytest.raises(UserError, match="expected one of the two"):
        desk.run("x.png", "--skip-existing", "--overwrite")


def test_what_another_process_has_done_meanwhile_is_skipped(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.add("x.png", smooth(8, 8))
    desk.add("y.png", smooth(8, 8))
    real = Path.hardlink_to

    def late(self: Path, target: Path) -> None:
        """Have the other one a moment earlier, and done with the next photograph as well."""
        for name in ("x.png", "y.png"):
            (desk.out / name).write_text("theirs")
        real(self, target)

    monkeypatch.setattr(Path, "hardlink_to", late)
    desk.run("x.png", "y.png", "--skip-existing")
    assert desk.summary.startswith("0 restored") and ", 2 were there already" in desk.summary
    assert (desk.out / "x.png").read_text() == "theirs"


@pytest.mark.parametrize(
    ("name", "words"), [("n" * 255, ()), ("写" * 83 + ".png", ("--suffix", "_restored"))]
)
def test_a_result_whose_name_would_be_too_long_is_refused(
    desk: Desk, name: str, words: tuple[str, ...]
) -> None:
    desk.add("y.png", smooth(8, 8)).rename(name)
    desk.add("y.png", smooth(8, 8))
    (line,) = desk.run(name, "y.png", *words, status=1).splitlines()
    assert re.search(r"its result would have 2\d\d bytes, expected at most 255; rename it", line)
    assert desk.summary.startswith("1 restored")


def test_a_name_that_is_not_utf_8(desk: Desk) -> None:
    name = os.fsdecode(b"\xff\xfe.png")
    values = random_values(9, 11, 3, 16)
    test_restore.written(desk.folder / name, values)
    desk.run(name)
    assert_array_equal(desk.result(name), values)


def test_suffix_quality_and_webp(desk: Desk) -> None:
    desk.add("a/x.JPG", random_values(64, 64, 3, 8))
    desk.run("a", "--suffix", "_restored", "--quality", 20)
    small = (desk.out / "x_restored.JPG").stat().st_size
    desk.run("a", "--suffix", "_restored", "--overwrite")
    assert (desk.out / "x_restored.JPG").stat().st_size > 2 * small
    desk.run("a", "--format", "webp")
    assert PillowImage.open(desk.out / "x.webp").format == "WEBP"


def test_date_and_mode_are_the_photographs(desk: Desk) -> None:
    path = desk.add("x.png", smooth(8, 8))
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18 + 123_456_789))
    desk.run("x.png")
    status = (desk.out / "x.png").stat()
    assert status.st_mtime_ns == 10**18 + 123_456_789 and status.st_mode & 0o777 == 0o640


def test_a_jpeg_without_its_end_is_taken_if_asked_for(desk: Desk) -> None:
    file = io.BytesIO()
    PillowImage.fromarray(random_values(64, 64, 3, 8)).save(file, "JPEG")
    (desk.folder / "x.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    (desk.folder / "x.png").write_bytes(png(random_values(200, 64, 3, 16))[:40_000])
    assert desk.run("x.jpg", "x.png", status=1).count("damaged image") == 2
    desk.run("x.jpg", "x.png", "--lenient", "--overwrite")
    assert "note: x.png: not kept: pixels that are damaged, black here" in desk.notes
    assert "note: x.jpg: not kept: pixels that are damaged or missing" in desk.notes
    assert_array_equal(desk.result("x.png")[:64], random_values(200, 64, 3, 16)[:64])


def test_a_librarys_own_messages_are_not_seen(desk: Desk) -> None:
    bad = bytearray(png(random_values(60, 64, 3, 16)))
    bad[len(bad) // 2] ^= 1
    (desk.folder / "x.png").write_bytes(bytes(bad))
    command = [sys.executable, "-m", "pipeline", "restore", "x.png", "--model",
               "model.safetensors", "--out", "out"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=desk.folder, capture_output=True, text=True, env=environment)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: x.png: damaged image (")


# Colours of other profiles


def profile(primaries: list[list[float]], gamma: float) -> bytes:
    """Return an ICC profile of three primaries (XYZ at D50) and one exponent, made by hand."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    contents = [
        (name, b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in xyz)))
        for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    ]
    contents += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    contents += [(b"wtpt", b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061))]
    place = 128 + 4 + 12 * len(contents)
    table, data = struct.pack(">I", len(contents)), b""
    for name, content in contents:
        table += struct.pack(">4sII", name, place + len(data), len(content))
        data += content
    head = bytearray(128)
    head[:4] = struct.pack(">I", place + len(data))
    head[8:12], head[12:24], head[36:40] = b"\2\x40\0\0", b"mntrRGB XYZ ", b"acsp"
    head[68:80] = struct.pack(">3i", 63190, 65536, 54061)
    return bytes(head) + table + data


ADOBE = [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]]
LINEAR = [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]


@pytest.mark.parametrize(("primaries", "gamma"), [(ADOBE, 2.19921875), (LINEAR, 1.0)])
def test_colours_reach_the_network_as_srgb(primaries: Any, gamma: float) -> None:
    """As LittleCMS brings them there, where it does not clip."""
    blob = profile(primaries, gamma)
    values = np.random.default_rng(0).integers(60, 180, (20, 30, 3)).astype(np.uint8)
    colours, note = colours_of(Form(20, 30, 3, 8, Metadata(icc_profile=blob)))
    found = colours.to_srgb(values.astype(np.float32) / 255)
    opened = ImageCms.ImageCmsProfile(io.BytesIO(blob))
    expected = ImageCms.profileToProfile(
        PillowImage.fromarray(values), opened, ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )  # fmt: skip
    assert expected is not None and note is None
    inside = (found > 0.01) & (found < 0.99)
    assert np.abs(found * 255 - np.asarray(expected))[inside].max() < 1.6
    assert np.abs(found - values / 255).max() > 0.05, "it is another profile"


@pytest.mark.parametrize(("primaries", "gamma"), [(ADOBE, 2.19921875), (LINEAR, 1.0)])
def test_a_network_that_changes_nothing_changes_no_colour(
    desk: Desk, primaries: Any, gamma: float
) -> None:
    blob = profile(primaries, gamma)
    values = random_values(40, 33, 3, 16)
    part = chunk(b"iCCP", b"x\0\0" + zlib.compress(blob))
    (desk.folder / "x.png").write_bytes(png(values, part))
    desk.run("x.png", "--tile", 32, "--overlap", 8)
    assert np.abs(desk.result("x.png").astype(int) - values).max() <= 1
    assert zlib.compress(blob) in (desk.out / "x.png").read_bytes()


@pytest.mark.parametrize(
    "curve",
    [
        b"para\0\0\0\0\0\0\0\0" + struct.pack(">i", -65536),  # an exponent of -1
        b"para\0\0\0\0\0\1\0\0" + struct.pack(">3i", 65536, 0, 65536),  # a of 0
        b"curv\0\0\0\0" + struct.pack(">IHH", 2, 65535, 0),
        b"curv\0\0\0\0\xff\xff\xff\xff",
        b"nonsense",
    ],
)
def test_a_profile_of_odd_curves_is_taken_for_srgb(curve: bytes) -> None:
    blob = bytearray(profile(ADOBE, 2.2))
    start = len(blob)
    blob += curve
    for place in range(132, 132 + 12 * 7, 12):
        if blob[place + 1 : place + 4] == b"TRC":
            blob[place + 4 : place + 12] = struct.pack(">II", start, len(curve))
    _, note = colours_of(Form(4, 5, 3, 8, Metadata(icc_profile=bytes(blob))))
    assert note == "colours were restored as if they were sRGB (the ICC profile is unusual)"


def test_srgb_itself_is_left_as_it_is() -> None:
    colours, note = colours_of(Form(4, 5, 3, 8, Metadata(icc_profile=SRGB)))
    values = np.random.default_rng(0).random((4, 5, 3), np.float32)
    assert colours.to_srgb(values) is values and note is None


# Optional packages


@pytest.mark.parametrize("name", ["x.heic", "x.jpg"])
def test_a_phones_heic_is_read(desk: Desk, name: str) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pip install '.[photos]'")
    tags = PillowImage.Exif()
    tags[0x010F] = "Maker"
    image = heif.from_pillow(PillowImage.fromarray(smooth(48, 64)))
    image.save(desk.folder / name, quality=-1, exif=tags.tobytes())
    desk.run(name, "--format", "png")
    with PillowImage.open(desk.out / "x.png") as result:
        assert result.getexif()[0x010F] == "Maker"
        assert np.abs(np.asarray(result).astype(int) - smooth(48, 64)).max() <= 3


def test_what_else_a_heic_holds_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As phones write it; pillow-heif writes no such file."""
    heif = pytest.importorskip("pillow_heif", reason="pip install '.[photos]'")
    xmp = b"<x HDRGainMap:HDRGainMapVersion='65536'/>"
    heif.from_pillow(PillowImage.fromarray(smooth(48, 64))).save("x.heic", quality=-1, xmp=xmp)
    plugin = pytest.importorskip("pillow_heif.as_plugin")._LibHeifImageFile
    opened = plugin._init_from_heif_file

    def with_more(self: Any, frame: int) -> None:
        opened(self, frame)
        aux = "urn:com:apple:photo:2020:aux:hdrgainmap", "urn:com:apple:photo:2018:aux:skinmatte"
        self.info |= {"aux": {key: [1] for key in aux}, "depth_images": [object()]}

    monkeypatch.setattr(plugin, "_init_from_heif_file", with_more)
    desk.run("x.heic")
    assert [note.removeprefix("note: x.heic: not kept: ") for note in desk.notes] == [
        "gain map", "XMP (it describes what is not kept)", "further picture (skinmatte)",
        "depth map",
    ]  # fmt: skip


def test_a_page_compares_before_and_after(desk: Desk) -> None:
    """Of large photographs means of squares of pixels are shown."""
    desk.add("a.png", np.full((30, 40), 100, np.uint8))
    wide = np.repeat(np.arange(3000, dtype=np.uint16)[None] * 20, 7, 0)[..., None]
    test_restore.written(desk.folder / "<b>.png", wide)
    desk.run("a.png", "<b>.png", "--compare", "pages/before_after.html", "--suffix", "_r")
    page = Path("pages/before_after.html").read_text()
    pictures = [
        np.asarray(PillowImage.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r"data:image/webp;base64,([^\"]+)", page)
    ]
    assert "&lt;b&gt;_r.png" in page and "<b>" not in page
    assert len(pictures) == 4 and (pictures[0] == 100).all()
    assert_array_equal(pictures[2], pictures[3])
    assert pictures[2].shape == (2, 1000, 3)
    expected = np.rint((wide[0, :, 0].reshape(1000, 3).mean(1)) / 65535 * 255)
    assert_array_equal(pictures[2][0, :, 0], expected)
    with pytest.raises(UserError, match="--compare pages: is a folder"):
        desk.run("a.png", "--compare", "pages")


def test_a_number_without_truth(desk: Desk) -> None:
    from skimage import data

    noise = np.random.default_rng(0).normal(0, 20, (288, 288, 3))
    clean = [data.astronaut(), data.coffee()[:, :500], data.chelsea()]
    for number, image in enumerate(clean * 2):
        for top in (0, 12):
            for left in (0, 40, 100):
                part = image[top : top + 288, left + number : left + number + 288]
                desk.add(f"clean/{number} {top} {left}.png", np.ascontiguousarray(part))
    noisy = np.clip(np.rint(data.astronaut()[:288, :288] + noise), 0, 255).astype(np.uint8)
    desk.add("in/noisy.png", noisy)
    desk.add("in/small.png", noisy[:90])
    desk.run("in", "--niqe", "clean")
    lines = desk.summary.splitlines()
    before, after = re.findall(r"\d+\.\d\d", next(line for line in lines if "noisy" in line))
    assert before == after and float(before) > 9
    assert "in/small.png: too small for NIQE" in lines
    assert f"NIQE {before} before, {after} after, the mean of 1: lower is more like" in desk.summary
    with pytest.raises(UserError, match="nowhere: no such folder; expected clean photographs"):
        desk.run("in", "--niqe", "nowhere", "--overwrite")
