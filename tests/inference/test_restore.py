"""The restore command: what it keeps of a photograph, what it refuses, how much memory it takes."""

import struct
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

from pipeline.commands.restore import main
from pipeline.config.build import build
from pipeline.config.restorers import RestorerSettings
from pipeline.images import files
from pipeline.inference.photographs.metadata import Metadata
from pipeline.inference.photographs.reading import Form, open_photograph
from pipeline.inference.photographs.writing import write_picture
from pipeline.models.build import build_restorer
from pipeline.models.weights import save_tensors

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
        picture = open_photograph(self.out / name, name, 10**9)
        return picture.rows(slice(0, picture.form.height))


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, capsys)


PHOTOS_ADVICE = "pip install '.[photos]' reads it, or save it as TIFF, PNG or JPEG"


@pytest.fixture
def no_optional_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the optional packages not installed."""
    monkeypatch.setattr(files, "is_installed", lambda package: False)


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


@pytest.mark.usefixtures("no_optional_packages")
def test_photographs_that_cannot_be_read_are_told_in_a_folder(desk: Desk) -> None:
    desk.add("in/x.png", smooth(8, 8))
    for name in ("IMG_1.HEIC", "deep/raw.dng", "notes.txt", "._IMG_1.HEIC"):
        (desk.folder / "in" / name).parent.mkdir(exist_ok=True)
        (desk.folder / "in" / name).write_bytes(b"x")
    assert desk.run("in", status=1).splitlines() == [
        f"error: in/IMG_1.HEIC: HEIC is not read; {PHOTOS_ADVICE}",
        f"error: in/deep/raw.dng: DNG is not read; {PHOTOS_ADVICE}",
    ]
    assert desk.summary.startswith("1 restored") and "2 other files left alone" in desk.summary


@pytest.mark.usefixtures("no_optional_packages")
@pytest.mark.parametrize(
    "words", [["in/IMG_1.heic", "in/RAW.DNG", "in/x.png"], ["in/*"], ["in/*.heic", "in/[RIx]*"]]
)
def test_they_are_told_by_name_and_by_pattern(desk: Desk, words: list[str]) -> None:
    """To Pillow a raw file is a TIFF of its thumbnail."""
    desk.add("in/x.png", smooth(8, 8))
    desk.add("in/RAW.DNG", smooth(12, 16), format="TIFF")
    (desk.folder / "in" / "IMG_1.heic").write_bytes(b"x")
    assert sorted(desk.run(*words, status=1).splitlines()) == [
        f"error: in/IMG_1.heic: HEIC is not read; {PHOTOS_ADVICE}",
        f"error: in/RAW.DNG: DNG is not read; {PHOTOS_ADVICE}",
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
