"""The restore command: what it keeps of a photograph, what it refuses, how much memory it takes."""

import argparse
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

from benchmarks import restore_large, seams
from pipeline.commands.restore import main
from pipeline.config.build import build
from pipeline.config.restorers import RestorerSettings
from pipeline.images.tiles import aligned_tiles
from pipeline.inference.model import InRange, restore
from pipeline.inference.photographs.metadata import Metadata
from pipeline.inference.photographs.reading import Form, read_picture
from pipeline.inference.photographs.writing import write_picture
from pipeline.models.build import build_restorer
from pipeline.models.weights import save_tensors
from pipeline.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
SETTINGS = {"kind": "unet", "levels": 2, "channels": 4}
ORIENTATION, MAKE = 0x0112, 0x010F
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

Values = NDArray[Any]
UPRIGHT: dict[int, Callable[[Values], Values]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}
"""What the value of the EXIF tag means, as in test_sources.py (JEITA CP-3451)."""


def save_model(path: Path, last: float = 0.0, **facts: Any) -> Path:
    """Write a model that adds ``last`` to every value: 0 changes nothing."""
    network = build_restorer(build(RestorerSettings, SETTINGS, "restorer"))
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.constant_(network.last.bias, last)
    save_tensors(
        path, network.state_dict(), {"restorer": SETTINGS, "image_range": [0.0, 1.0], **facts}
    )
    return path


class Desk:
    """A folder with photographs, a model that changes nothing, and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.model, self.out = save_model(folder / "model.safetensors"), folder / "out"

    def add(self, name: str, values: Values, **options: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(values).save(path, **options)
        return path

    def run(self, *words: Any, status: int = 0, model: Path | str | None = None) -> str:
        """Restore and return what was printed as errors."""
        given = [str(word) for word in words]
        paths = ["--model", str(model or self.model), "--out", str(self.out), "--threads", "1"]
        found = main([*given, *paths])
        printed = self.capsys.readouterr()
        self.summary = printed.out
        assert found == status, printed
        lines = printed.err.splitlines()
        assert all(line.startswith(("error: ", "note: ")) for line in lines), printed
        self.notes = [line for line in lines if line.startswith("note: ")]
        return "".join(f"{line}\n" for line in lines if line not in self.notes)

    def result(self, name: str) -> Values:
        picture = read_picture(self.out / name, name, 10**9)
        return picture.rows(slice(0, picture.form.height))


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, capsys)


def random_values(height: int, width: int, channels: int, bits: int) -> Values:
    kind = np.uint8 if bits == 8 else np.uint16
    shape = (height, width, channels)
    return np.random.default_rng(0).integers(0, 2**bits, shape).astype(kind)


def written(path: Path, values: Values, **parts: Any) -> Path:
    """Write with our own writer; test_files_of_16_bits_are_what_others_read holds it to others."""
    bits = values.dtype.itemsize * 8
    form = Form(*values.shape, bits, Metadata(**parts))
    write_picture(path, "tiff" if path.suffix == ".tif" else "png", form, iter([values]))
    return path


# Pixels


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (37, 53), (64, 64), (65, 130)])
@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_that_changes_nothing_changes_nothing(
    desk: Desk, size: tuple[int, int], kind: str, bits: int, channels: int
) -> None:
    values = random_values(*size, channels, bits)
    written(desk.folder / f"x.{kind}", values)
    desk.run(f"x.{kind}", "--tile", 32, "--overlap", 8)
    found = desk.result(f"x.{kind}")
    assert found.dtype == values.dtype
    # blended tiles round in float32, which 16 bits can just see
    assert found.shape == values.shape
    assert np.abs(found.astype(int) - values).max() <= (0 if bits == 8 else 1)


def test_files_of_16_bits_are_what_others_read(desk: Desk) -> None:
    """Read by tifffile, and by Pillow, which shows the upper bytes of colours."""
    colours, grey = random_values(50, 41, 3, 16), random_values(50, 41, 1, 16)
    for name, values in (("c", colours), ("g", grey)):
        written(desk.folder / f"{name}.tif", values)
        assert_array_equal(tifffile.imread(desk.folder / f"{name}.tif"), values.squeeze())
        written(desk.folder / f"{name}.png", values)
    assert_array_equal(np.asarray(PillowImage.open("c.png")), colours >> 8)
    assert_array_equal(np.asarray(PillowImage.open("g.png")), grey[..., 0])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiffs_of_others_are_read(
    desk: Desk, byteorder: Any, compression: str | None, channels: int
) -> None:
    values = random_values(20, 31, channels, 16)
    tifffile.imwrite(
        "x.tif", values.squeeze(), byteorder=byteorder, compression=compression,
        photometric="rgb" if channels > 1 else "minisblack",
        extrasamples=["unassalpha"] if channels == 4 else None,
    )  # fmt: skip
    desk.run("x.tif")
    assert_array_equal(desk.result("x.tif"), values)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_interlaced_pngs_of_16_bits_are_read(desk: Desk, channels: int) -> None:
    """Seven passes made by hand (PNG specification, 8.2)."""
    values = random_values(21, 13, channels, 16)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1)]  # fmt: skip
    lines = b"".join(
        b"\0" + line.astype(">u2").tobytes()
        for top, left, down, right in passes
        for line in values[top::down, left::right]
    )
    (desk.folder / "x.png").write_bytes(
        chunked(13, 21, b"IDAT" + zlib.compress(lines), depth=16, channels=channels, interlaced=1)
    )
    desk.run("x.png")
    assert_array_equal(desk.result("x.png"), values)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_kept_as_it_is(desk: Desk, channels: int, bits: int) -> None:
    values = random_values(40, 33, channels, bits)
    written(desk.folder / "x.png", values)
    brighter = save_model(desk.folder / "brighter", last=0.25)
    desk.run("x.png", "--tile", 32, "--overlap", 8, model=brighter)
    found = desk.result("x.png")
    assert_array_equal(found[..., -1], values[..., -1])
    highest = 2**bits - 1
    expected = np.minimum(values[..., :-1] / highest + 0.25, 1) * highest
    assert np.abs(found[..., :-1] - expected).max() < 1.6


def test_grey_palette_and_a_transparent_colour_keep_their_kind(desk: Desk) -> None:
    grey = random_values(9, 7, 1, 8)[..., 0]
    desk.add("grey.png", grey)
    PillowImage.fromarray(grey).convert("1").save("bits.png")
    colours = PillowImage.fromarray(random_values(9, 7, 3, 8))
    palette = colours.quantize(16)
    palette.save("palette.png")
    palette.save("clear.png", transparency=0)
    desk.run("grey.png", "bits.png", "palette.png", "clear.png")
    assert PillowImage.open("out/grey.png").mode == PillowImage.open("out/bits.png").mode == "L"
    assert_array_equal(desk.result("grey.png")[..., 0], grey)
    for name, mode in (("palette.png", "RGB"), ("clear.png", "RGBA")):
        expected = np.asarray(PillowImage.open(name).convert(mode))
        assert_array_equal(np.asarray(PillowImage.open(f"out/{name}")), expected)


def smooth(height: int, width: int) -> Values:
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 2 + 40, columns * 2 + 20, rows + columns]
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "wanted", "result", "kind"),
    [
        ("x.JPG", None, "x.JPG", "JPEG"),
        ("x.jpeg", "png", "x.png", "PNG"),
        ("x.png", "jpeg", "x.jpg", "JPEG"),
        ("x.tiff", None, "x.tiff", "TIFF"),
        ("x.png", "tiff", "x.tif", "TIFF"),
        ("x.webp", None, "x.png", "PNG"),
        ("x.bmp", None, "x.png", "PNG"),
    ],
)
def test_the_format_follows_the_rule(
    desk: Desk, name: str, wanted: str | None, result: str, kind: str
) -> None:
    values = smooth(60, 70)
    path = desk.add(name, values, quality=100)
    desk.run(name, *(["--format", wanted] if wanted else []))
    assert [file.name for file in desk.out.iterdir()] == [result]
    with PillowImage.open(desk.out / result) as image:
        assert image.format == kind
    given = np.asarray(PillowImage.open(path).convert("RGB")).astype(int)
    assert np.abs(desk.result(result) - given).max() <= (4 if kind == "JPEG" else 0)


# What travels with the pixels


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("value", UPRIGHT)
def test_orientation_is_applied_once(desk: Desk, value: int, kind: str) -> None:
    stored = np.kron(smooth(4, 7) // 2 * 8 % 160 + 40, np.ones((16, 16, 1), np.uint8))
    tags = PillowImage.Exif()
    tags[ORIENTATION], tags[MAKE] = value, "Maker"
    options: dict[str, Any] = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(kind, {})
    desk.add(f"x.{kind}", stored, exif=tags, **options)
    # tiles smaller than the photograph: every band is cut out of it and turned
    desk.run(f"x.{kind}", "--tile", 32, "--overlap", 8)
    (path,) = desk.out.iterdir()
    with PillowImage.open(path) as image:
        assert image.getexif().get(ORIENTATION, 1) == 1
        assert image.getexif()[MAKE] == "Maker"
        found = np.asarray(image).astype(int)
    expected = UPRIGHT[value](np.asarray(PillowImage.open(desk.folder / f"x.{kind}"))
                              if kind != "tif" else stored)  # fmt: skip
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (6 if kind == "jpg" else 0)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("wanted", ["png", "jpeg", "tiff"])
def test_the_colour_profile_is_kept_byte_by_byte(desk: Desk, kind: str, wanted: str) -> None:
    desk.add(f"x.{kind}", smooth(16, 16), icc_profile=SRGB)
    desk.run(f"x.{kind}", "--format", wanted)
    (path,) = desk.out.iterdir()
    with PillowImage.open(path) as image:
        assert image.info["icc_profile"] == SRGB


def test_a_phones_jpeg_with_a_second_picture_is_its_first(desk: Desk) -> None:
    first, second = smooth(40, 48), 255 - smooth(20, 24)
    others = [PillowImage.fromarray(second)]
    desk.add("x.jpg", first, format="MPO", save_all=True, append_images=others, quality=100)
    desk.run("x.jpg")
    assert np.abs(desk.result("x.jpg").astype(int) - first).max() <= 6


# Names


def test_folders_names_and_other_files(desk: Desk) -> None:
    values = smooth(8, 8)
    for name in ("a b.png", "Grüße/日本 (1).png", "deep/er/x.tar.png", "deep/UPPER.PNG"):
        desk.add(f"in/{name}", values)
    (desk.folder / "in" / "notes.txt").write_text("x")
    (desk.folder / "in" / "deep" / "._x.png").write_bytes(b"x")
    desk.run("in")
    found = {path.relative_to(desk.out).as_posix() for path in desk.out.rglob("*.*")}
    assert found == {"a b.png", "Grüße/日本 (1).png", "deep/er/x.tar.png", "deep/UPPER.PNG"}
    assert desk.summary.startswith(f"4 restored into {desk.out}")
    assert "2 other files left alone (.png, .txt)" in desk.summary


def test_photographs_that_cannot_be_read_are_told_in_a_folder(desk: Desk) -> None:
    desk.add("in/x.png", smooth(8, 8))
    for name in ("IMG_1.HEIC", "deep/raw.dng", "notes.txt", "._IMG_1.HEIC"):
        (desk.folder / "in" / name).parent.mkdir(exist_ok=True)
        (desk.folder / "in" / name).write_bytes(b"x")
    assert desk.run("in", status=1).splitlines() == [
        "error: in/IMG_1.HEIC: HEIC is not read; save it as TIFF, PNG or JPEG",
        "error: in/deep/raw.dng: DNG is not read; save it as TIFF, PNG or JPEG",
    ]
    assert desk.summary.startswith("1 restored") and "2 other files left alone" in desk.summary


@pytest.mark.parametrize(
    "words", [["in/IMG_1.heic", "in/RAW.DNG", "in/x.png"], ["in/*"], ["in/*.heic", "in/[RIx]*"]]
)
def test_they_are_told_by_name_and_by_pattern(desk: Desk, words: list[str]) -> None:
    """To Pillow a raw file is a TIFF of its thumbnail."""
    desk.add("in/x.png", smooth(8, 8))
    desk.add("in/RAW.DNG", smooth(12, 16), format="TIFF")
    (desk.folder / "in" / "IMG_1.heic").write_bytes(b"x")
    assert sorted(desk.run(*words, status=1).splitlines()) == [
        "error: in/IMG_1.heic: HEIC is not read; save it as TIFF, PNG or JPEG",
        "error: in/RAW.DNG: DNG is not read; save it as TIFF, PNG or JPEG",
    ]
    assert [path.name for path in desk.out.iterdir()] == ["x.png"]


def test_patterns_keep_what_lies_below_their_fixed_part(desk: Desk) -> None:
    for name in ("in/a/1.png", "in/b/1.png", "in/b/c/2.png", "in/b/3.jpg", "[x].png"):
        desk.add(name, smooth(8, 8))
    desk.run("in/**/*.png", "in/b", "[x].png", "./[x].png")
    found = {path.relative_to(desk.out).as_posix() for path in desk.out.rglob("*.*")}
    assert found == {"a/1.png", "b/1.png", "b/c/2.png", "1.png", "c/2.png", "3.jpg", "[x].png"}


def test_results_inside_the_folder_are_no_input(desk: Desk) -> None:
    desk.add("in/x.png", smooth(8, 8))
    desk.out = desk.folder / "in" / "restored"
    desk.run("in")
    assert "in/restored/x.png" in desk.run("in", status=1)
    desk.run("in", "--overwrite")
    assert [path.name for path in desk.out.iterdir()] == ["x.png"]


@pytest.mark.parametrize("pattern", ["in/**/*.png", "in/*", "i[n]", "**/*.png"])
def test_results_below_a_pattern_are_no_input(desk: Desk, pattern: str) -> None:
    desk.add("in/x.png", smooth(8, 8))
    desk.out = desk.folder / "in" / "restored"
    for _ in range(3):
        desk.run(pattern, "--overwrite")
        (result,) = desk.out.rglob("*.png")
        assert result.name == "x.png" and desk.summary.startswith("1 restored")


def test_results_that_are_named_are_input(desk: Desk) -> None:
    desk.add("in/restored/x.png", smooth(8, 8))
    desk.out = desk.folder / "in" / "restored"
    for words in (["in/restored/x.png"], ["in/restored/*.png"], ["in/restored"]):
        assert "is itself a photograph" in desk.run(*words, "--overwrite", status=1)


def test_nothing_is_overwritten_unasked(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    desk.add("y.png", smooth(8, 8))
    desk.out.mkdir()
    (desk.out / "x.png").write_text("mine")
    said = desk.run("x.png", "y.png", status=1)
    assert "x.png is there already; --overwrite replaces it" in said and said.count("\n") == 1
    assert (desk.out / "x.png").read_text() == "mine" and (desk.out / "y.png").is_file()
    assert desk.summary.startswith("1 restored") and ", 1 failed" in desk.summary
    desk.run("x.png", "y.png", "--overwrite")
    assert_array_equal(desk.result("x.png"), smooth(8, 8))


def test_a_photograph_never_takes_the_place_of_a_photograph(desk: Desk) -> None:
    before = desk.add("in/x.png", smooth(8, 8)).read_bytes()
    desk.out = desk.folder / "in"
    said = desk.run("in", "--overwrite", status=1)
    assert "in/x.png is itself a photograph to restore" in said
    assert (desk.folder / "in" / "x.png").read_bytes() == before


def test_two_photographs_of_one_result_are_both_refused(desk: Desk) -> None:
    for name in ("a/x.png", "b/x.png", "a/y.bmp", "a/y.png", "a/z.png"):
        desk.add(name, smooth(8, 8))
    lines = desk.run("a", "b", status=1).splitlines()
    assert len(lines) == 4 and all("same result" in line for line in lines)
    assert [path.name for path in desk.out.iterdir()] == ["z.png"]
    assert "4 failed" in desk.summary


# Damaged and hostile


def chunked(
    width: int, height: int, *content: bytes, depth: int = 8, channels: int = 3, interlaced: int = 0
) -> bytes:
    """Return a PNG made by hand with any content."""

    def chunk(name: bytes, part: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + part))
        return struct.pack(">I", len(part)) + name + part + crc

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), *(chunk(part[:4], part[4:]) for part in content)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def encoded(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(random_values(60, 80, 3, 8)).save(file, kind, **options)
    return file.getvalue()


PAGES = {"save_all": True, "append_images": [PillowImage.new("RGB", (80, 60))]}
HOSTILE = {
    "header.png": (chunked(100_000, 100_000, b"IDAT" + zlib.compress(b"")), "10,000 megapixels"),
    "bomb.png": (
        chunked(20_000, 20_000, b"IDAT" + zlib.compress(bytes(10_000_000))),
        "400 megapixels, expected at most 250",
    ),
    "profile.png": (
        chunked(8, 8, b"iCCPx\0\0" + zlib.compress(bytes(100_000_000)),
                b"IDAT" + zlib.compress(b"")),
        "damaged image",
    ),
    "short.png": (encoded("PNG")[:5000], "damaged image"),
    "short.jpg": (encoded("JPEG")[:3000], "damaged image"),
    "short.tif": (encoded("TIFF", compression="tiff_lzw")[:5000], "image"),
    "cut.webp": (encoded("WEBP")[:1000], "image"),
    "empty.png": (b"", "empty file"),
    "text.png": (b"This is a text.\n", "not an image"),
    "page.jpg": (b"<html></html>", "web page under the ending .jpg"),
    "pages.tif": (encoded("TIFF", **PAGES), "holds 2 pictures"),
    "moving.webp": (encoded("WEBP", **PAGES), "holds 2 pictures"),
    "code.png": (pickle.dumps(print), "not an image"),
    # what reads it would start Ghostscript with the program inside
    "script.png": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 60\n%%EndComments\nquit\n%%EOF\n",
        "PostScript under the ending .png",
    ),
    "format.png": (encoded("GIF"), "GIF under the ending .png; save it as TIFF, PNG or JPEG"),
}  # fmt: skip


def test_each_hostile_file_is_one_line_and_the_rest_goes_on(desk: Desk) -> None:
    for name, (content, _) in HOSTILE.items():
        (desk.folder / "in").mkdir(exist_ok=True)
        (desk.folder / "in" / name).write_bytes(content)
    desk.add("in/good.png", smooth(8, 8))
    desk.add("in/zz good.jpg", smooth(8, 8))
    for pipe in ("in/pipe.png", "fifo"):
        os.mkfifo(pipe)
    (desk.folder / "in" / "linked.png").symlink_to(desk.folder / "fifo")
    others = ("in/pipe.png", "in/linked.png", "fifo", "/dev/zero")
    given = ("in", "fifo", "/dev/zero", "nowhere.png", "none/*.png")
    lines = desk.run(*given, status=1).splitlines()
    for name in others:
        assert f"error: {name}: not a regular file; expected an image" in lines
    for name, (_, message) in HOSTILE.items():
        (line,) = (line for line in lines if line.startswith(f"error: in/{name}: "))
        assert message in line
    assert "error: nowhere.png: no such file or folder" in lines
    assert any(line.startswith("error: none/*.png: no image found") for line in lines)
    failed = len(HOSTILE) + len(others) + 2
    assert len(lines) == failed
    assert desk.summary.startswith("2 restored") and f"{failed} failed" in desk.summary
    assert sorted(path.name for path in desk.out.iterdir()) == ["good.png", "zz good.jpg"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_bytes_changed_at_random_are_told_or_read(kind: str, tmp_path: Path) -> None:
    content = encoded(kind)
    generator = np.random.default_rng(0)
    path = tmp_path / "x"
    for _ in range(300):
        changed = bytearray(content)
        for place in generator.integers(0, min(len(content), 400), 4):
            changed[place] = generator.integers(256)
        path.write_bytes(bytes(changed))
        try:
            picture = read_picture(path, "x", 1_000_000)
            picture.rows(slice(0, picture.form.height))
        except UserError as error:
            assert str(error).startswith("x: ") and "\n" not in str(error)


def test_16_bits_transparency_and_pages_that_a_format_cannot_hold_are_told(desk: Desk) -> None:
    written(desk.folder / "deep.png", random_values(8, 8, 3, 16))
    written(desk.folder / "clear.png", random_values(8, 8, 4, 8))
    said = desk.run("deep.png", "clear.png", "--format", "jpeg", status=1)
    assert "JPEG cannot hold 16 bits" in said and "JPEG cannot hold an alpha channel" in said
    PillowImage.new("CMYK", (8, 8)).save("print.jpg")
    PillowImage.new("I", (8, 8)).save("long.tif")
    said = desk.run("print.jpg", "long.tif", status=1)
    assert "print.jpg: CMYK colours" in said
    assert "long.tif: TIFF of signed integer values of 32 bits; save it with 8 or 16" in said


def test_links_are_followed_and_loops_told(desk: Desk) -> None:
    desk.add("in/a/x.png", smooth(8, 8))
    desk.add("elsewhere/y.png", smooth(8, 8))
    (desk.folder / "in" / "linked").symlink_to(desk.folder / "elsewhere")
    (desk.folder / "in" / "a" / "loop").symlink_to(desk.folder / "in")
    (desk.folder / "in" / "itself.png").symlink_to("itself.png")
    said = desk.run("in", status=1)
    assert "in/a/loop: leads to in, which is read already" in said
    assert "in/itself.png: " in said
    assert said.count("\n") == 2
    assert (desk.out / "a" / "x.png").is_file() and (desk.out / "linked" / "y.png").is_file()


def test_a_name_of_strange_characters_stays_one_line(desk: Desk) -> None:
    (desk.folder / "in").mkdir()
    (desk.folder / "in" / "a\nerror: b\x1b[31m.png").write_text("no image")
    (line,) = desk.run("in", status=1).splitlines()
    assert "\x1b" not in line and r"a\nerror: b\x1b[31m.png" in line


def as_without_rights(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command so that rights of files bind it, also where tests run as root."""
    prefix = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv to give up root's rights")
        prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*prefix, sys.executable, "-m", "pipeline", "restore", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


def test_folders_without_rights_are_told(desk: Desk) -> None:
    desk.add("in/a/x.png", smooth(8, 8))
    desk.add("in/closed/y.png", smooth(8, 8))
    desk.add("in/unreadable.png", smooth(8, 8)).chmod(0)
    (desk.folder / "in" / "closed").chmod(0)
    (desk.folder / "ours").mkdir(mode=0o555)
    try:
        done = as_without_rights(
            "in", "--model", "model.safetensors", "--out", "out", cwd=desk.folder
        )
        ours = as_without_rights(
            "in", "--model", "model.safetensors", "--out", "ours", cwd=desk.folder
        )
    finally:
        (desk.folder / "in" / "closed").chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert sorted(done.stderr.splitlines()) == [
        "error: in/closed: cannot be read (Permission denied)",
        "error: in/unreadable.png: Permission denied (in/unreadable.png)",
    ]
    assert done.stdout.startswith("1 restored into out")
    assert ours.returncode == 2
    assert ours.stderr == "error: --out ours: cannot be written to (Permission denied)\n"


def test_a_full_disk_ends_it_and_leaves_no_half_file(desk: Desk, small_disk: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        desk.add(f"in/{name}", random_values(400, 500, 3, 8))
    desk.out = small_disk
    lines = desk.run("in", status=1).splitlines()
    assert "in/b.png: No space left on device" in lines[0]
    assert lines[1] == "error: disk full: the 1 photographs after it were not tried"
    assert desk.summary.startswith("1 restored") and ", 2 failed" in desk.summary
    assert [path.name for path in small_disk.iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg"])
def test_every_format_tells_a_full_disk(desk: Desk, small_disk: Path, kind: str) -> None:
    desk.add("x.bmp", random_values(1000, 900, 3, 8))
    desk.out = small_disk
    assert "No space left on device" in desk.run("x.bmp", "--format", kind, status=1)
    assert not list(small_disk.iterdir())


# The model and the command line


class Exploding:
    """Unpickled, it writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


def test_a_pickle_given_as_model_is_not_unpickled(desk: Desk) -> None:
    trap = desk.folder / "trap"
    for name in ("model.pth", "model.safetensors"):
        torch.save({"weights": Exploding(trap)}, desk.folder / name)
        with pytest.raises(UserError, match=f"{name}: damaged or not written by this project"):
            desk.run("x.png", model=name)
        (desk.folder / name).write_bytes(pickle.dumps(Exploding(trap)))
        with pytest.raises(UserError, match=f"{name}: damaged or not written by this project"):
            desk.run("x.png", model=name)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (None, "not written by this project"),
        ([], "its facts are no names and values"),
        ({}, "restorer: found None"),
        ({"restorer": {**SETTINGS, "levels": 3}, "image_range": [0, 1]}, "of another network"),
        # 9 GB of weights: told before they are made
        ({"restorer": {**SETTINGS, "levels": 6, "channels": 512}, "image_range": [0, 1]},
         "of another network"),
        ({"restorer": {**SETTINGS, "kind": "pickle"}, "image_range": [0, 1]}, "expected one of"),
        ({"restorer": SETTINGS}, "image_range: found None"),
        ({"restorer": SETTINGS, "image_range": [1, 0]}, "image_range"),
        ({"restorer": SETTINGS, "image_range": [1, 1]}, "image_range"),
        ({"restorer": SETTINGS, "image_range": [0, float("inf")]}, "image_range"),
    ],
)  # fmt: skip
def test_a_model_without_its_facts_is_refused(desk: Desk, facts: Any, message: str) -> None:
    network = build_restorer(build(RestorerSettings, SETTINGS, "restorer"))
    path = desk.folder / "other.safetensors"
    if facts is None:
        from safetensors.torch import save_file

        save_file(network.state_dict(), path)
    else:
        save_tensors(path, network.state_dict(), facts)
    with pytest.raises(UserError, match=message) as caught:
        desk.run("x.png", model=path)
    assert "\n" not in str(caught.value)


def test_a_model_of_values_that_are_not_finite_is_told(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    broken = save_model(desk.folder / "broken", last=float("nan"))
    assert "x.png: the model gives values that are not finite" in desk.run(
        "x.png", model=broken, status=1
    )
    assert not list(desk.out.iterdir())


def test_a_run_is_found_by_its_name(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    run = desk.folder / "data" / "models" / "denoise" / "vanilla-0"
    run.mkdir(parents=True)
    save_model(run / "model.safetensors")
    desk.run("x.png", model="denoise/vanilla-0")
    desk.run("x.png", "--overwrite", model=run)
    with pytest.raises(UserError, match=r"derain/vanilla-0: no model; .*denoise/vanilla-0"):
        desk.run("x.png", model="derain/vanilla-0")


def test_settings_are_those_of_params_yaml_if_it_is_there(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    shutil.copy(ROOT / "params.yaml", desk.folder)
    desk.run("x.png")
    Path("params.yaml").write_text("evaluate: 3\n")
    with pytest.raises(UserError):
        desk.run("x.png")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["x.png"],
        ["x.png", "--model", "m", "--out", "o", "--format", "gif"],
        ["x.png", "--model", "model.safetensors", "--out", "o", "--tile", "8"],
        ["x.png", "--model", "model.safetensors", "--out", "o", "--tile", "64", "--overlap", "40"],
        ["x.png", "--model", "nothing", "--out", "o"],
        ["x.png", "--model", "model.safetensors", "--out", "o", "--max-megapixels", "nan"],
        ["x.png", "--model", "model.safetensors", "--out", "o", "--max-megapixels", "0"],
        ["x.png", "--model", "model.safetensors", "--out", "model.safetensors/o"],
    ],
)
def test_wrong_usage_has_status_2(desk: Desk, words: list[str]) -> None:
    desk.add("x.png", smooth(8, 8))
    done = as_without_rights(*words, cwd=desk.folder)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


# Tiles


def trained_like(levels: int = 3) -> InRange:
    """A U-Net whose residual is as strong as a trained one's, by chance not by training."""
    torch.manual_seed(1)
    network = build_restorer(build(RestorerSettings, {**SETTINGS, "levels": levels}, "restorer"))
    for parameter in network.parameters():
        parameter.data *= 2.0
    return InRange(network, (0.0, 1.0)).eval()


def test_no_seam_shows() -> None:
    """At the borders of tiles the tiled image jumps from the untiled no more than elsewhere."""
    rows, columns = np.mgrid[:300, :420].astype(np.float32)
    waves = 0.5 + 0.2 * np.sin(rows / 9) * np.cos(columns / 13)
    noise = np.random.default_rng(0).normal(0, 0.05, (300, 420, 3))
    given = (waves[..., None] + noise).astype(np.float32)
    network = trained_like()
    whole = restore(network, given, 512, 0, "fp32")
    assert np.abs(whole - given).max() > 0.05

    def jumps(overlap: int, axis: int) -> tuple[float, float]:
        """Return the largest jump of the difference at the rows or columns of borders, and else."""
        difference = restore(network, given, 128, overlap, "fp32") - whole
        steps = np.abs(np.diff(difference, axis=axis)).max(axis=(1 - axis, 2))
        side = given.shape[axis]
        tiles = aligned_tiles(side, 128, overlap, network.factor)
        edges = {edge for tile in tiles for edge in (tile.start, tile.stop)} - {0, side}
        at = np.isin(np.arange(len(steps)), [edge - 1 for edge in edges])
        return float(steps[at].max()), float(steps[~at].max())

    for axis in (0, 1):
        blended, elsewhere = jumps(overlap=32, axis=axis)
        hard, _ = jumps(overlap=0, axis=axis)
        assert blended <= 1.5 * elsewhere + 1e-4
        assert blended < hard / 5  # the measure sees a seam where there is one


def test_the_seam_figure(desk: Desk) -> None:
    picture = desk.folder / "seams.png"
    seams.main(["--model", str(desk.model), "--out", str(picture)])
    assert "blended: at most 0.0" in desk.capsys.readouterr().out
    assert PillowImage.open(picture).size == (1008, 276)
    assert 0 < (ROOT / "docs" / "seams.png").stat().st_size < 200_000


def test_memory_does_not_hold_the_whole_as_numbers(tmp_path: Path) -> None:
    """40 megapixels: 160 MB decoded; one float32 copy would be 480 MB more."""
    model = save_model(tmp_path / "model")
    arguments = argparse.Namespace(
        bits=8, format="png", model=model, tile=256, overlap=32, threads=1
    )
    small, large = (restore_large.measure(size, arguments) for size in (1, 40))
    grown = (large["peak_mib"] - small["peak_mib"]) * 2**20
    assert grown < 4 * 40e6 + 30 * 7746 * 256 + 100e6
    assert grown < 40e6 * 12
