"""Photographs of one's own."""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from pipeline.config.compose import compose
from pipeline.config.sources import (
    FolderSource,
    PairFolders,
)
from pipeline.images import files
from pipeline.runtime.errors import UserError
from pipeline.sources import folder
from pipeline.sources.photographs import ARCHIVE, decode
from tests.sources.test_sources import ORIENTATION, WHOLE, Pixels, encoded

ROOT = Path(__file__).parents[2]

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
    own: Own, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "is_installed", lambda package: False)
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


def test_the_stage_prints_nothing_but_its_own_line(own: Own, tmp_path: Path) -> None:
    """libpng writes of a damaged file by itself, past Python."""
    path = own.add("real/flipped.png", height=60, width=80)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    compose(
        ["preset=tiny", "sources=[folder]", "tasks=[own_denoise]",
         f"sources.folder.location={own.location}"],
        tmp_path / "params.yaml",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "stages.download", "--source", "folder"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {path}: damaged image")


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
    own.names = ("{}_noisy.png", "{}_clean")
    assert "no image is named as '{}_noisy.png' says; found" in own.refused(e=("both", "both"))
    for name in ("noisy", "{}{}"):
        own.names = (name, "{}")
        told = own.refused(e=("both", "both"))
        assert f"found the name {name!r}, expected one with {{}} in it once" in told


def test_a_test_set_of_equal_images_and_a_name_with_a_slash_are_refused(own: Own) -> None:
    own.add("test/clean/x.png", 40)
    own.add("test/copy/x.bmp", 40)
    for degraded in ("test/clean", "test/copy"):
        told = own.refused(evening=(degraded, "test/clean"))
        assert "'evening': its degraded images are its clean ones, pixel by pixel" in told
    assert "the test set 'a/b', expected a name without '/'" in own.refused(
        **{"a/b": ("test/copy", "test/clean")}
    )


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
