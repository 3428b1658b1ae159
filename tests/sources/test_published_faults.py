"""What can be wrong with published data sets, and kills."""

import io
import os
import random
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pipeline.config.compose import compose
from pipeline.runtime.errors import UserError
from tests.helpers import miniatures as mini
from tests.sources import test_published
from tests.sources.test_published import Raw, changed

published = test_published.published
raw = test_published.raw
settings = test_published.settings


# What can be wrong with them


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        (
            "sidd",
            {"a.zip": changed(mini.sidd_medium(), NOISY_SRGB_011=None)},
            "no degraded partner",
        ),
        ("sidd", {"a.zip": changed(mini.sidd_medium(), GT_SRGB_010=None)}, "no clean partner"),
        ("sidd", {"v.zip": changed(mini.sidd_validation(), Gt=None)}, "Gt.*missing beside"),
        ("sidd", {"v.zip": changed(mini.sidd_validation(), Gt=b"no")}, "no MATLAB file"),
        ("sidd", {"v.zip": mini.sidd_validation()[:-9]}, "v.zip: damaged"),
        (
            "sidd",
            {
                "v.zip": changed(
                    mini.sidd_validation(),
                    Gt=mini.mat("ValidationGtBlocksSrgb", np.zeros((2, 3, 8, 8), np.uint8)),
                )
            },
            r"as uint8 \(scenes, blocks, height, width, 3\), found uint8",
        ),
        (
            "sidd",
            {"v.zip": changed(mini.sidd_validation(), Gt=mini.mat("other", np.zeros(3)))},
            "found no such variable",
        ),
        (
            "sidd",
            {
                "v.zip": changed(
                    mini.sidd_validation(),
                    Gt=mini.mat("ValidationGtBlocksSrgb", mini.blocks("Gt", 1)),
                )
            },
            "blocks of two shapes",
        ),
        ("rain13k", {"a.zip": changed(mini.rain13k(), input_2=None)}, "'2' has no degraded"),
        (
            "rain13k",
            {"a.zip": changed(mini.rain13k(), input_2=mini.image("x.png", 41, 48))},
            r"'2' is \(41, 48\) \(height, width\) degraded but \(40, 48\) clean",
        ),
        (
            "rain13k",
            {"a.zip": changed(mini.rain13k(), input_2=mini.image("x.png")[:900])},
            "input/2.png: damaged image",
        ),
        ("rain13k", {"a.zip": changed(mini.rain13k(), target_1=b"")}, "target/1.jpg: empty file"),
        ("rain13k", {"a.zip": mini.rain13k(), "b.zip": mini.rain13k(1)}, "both degraded images"),
        ("gopro", {"a.zip": mini.rain13k()}, "holds no image of GoPro train .*nothing of a known"),
        ("gopro", {"a.zip": b"PK"}, "a.zip: damaged"),
        ("realblur", {"a.tar": mini.as_tar(mini.realblur())[:-40_000]}, "a.tar: damaged"),
        ("realblur", {"a.tar.gz": mini.as_tar_gz(mini.realblur())[:-99]}, "a.tar.gz: damaged"),
        (
            "realblur",
            {
                "a.tar": mini.as_tar(
                    {k: v for k, v in mini.realblur().items() if "scene003/gt/gt_1" not in k}
                )
            },
            "RealBlur_J_train_list.txt, line 3: expected '<truth> <blurred>'",
        ),
        ("dnd", {"a.zip": changed(mini.dnd(), info_mat=None)}, "info.mat is missing"),
        ("dnd", {"a.zip": changed(mini.dnd(), info_mat=b"x" * 99)}, "not laid out as DND"),
        ("dnd", {"a.zip": changed(mini.dnd(), srgb_0002=b"x" * 99)}, "0002.mat: not laid out"),
        ("spa", {"r.zip.00": b"x", "r.zip.02": b"x"}, "part 01 of r.zip is missing"),
        (
            "spa",
            dict(list(mini.in_parts(mini.spa_train(), "r.zip", 3).items())[:2]),
            "found the parts 00 to 01 of r.zip, of which the last is missing",
        ),
        ("real_internet", {"a.zip": mini.as_zip(mini.images(["a/1.png", "b/1.png"]))}, "are both"),
        ("coco", {}, "holds no image"),
    ],
)
def test_what_is_wrong_is_told(raw: Raw, kind: str, files: dict[str, bytes], message: str) -> None:
    told = raw.put(files).refused(kind)
    assert re.search(message, told), told
    assert [path.name for path in raw.folder.parent.iterdir()] == ["set"], (
        "nothing unpacked is left"
    )


@pytest.mark.parametrize("kind", ["sidd", "spa", "realblur", "rain13k", "gopro", "cc15", "polyu"])
@pytest.mark.parametrize("side", ["degraded", "clean"])
def test_a_side_that_is_missing_as_a_whole_is_told(raw: Raw, kind: str, side: str) -> None:
    """Nothing but one side of the pairs lies there."""
    archives = {
        "sidd": (mini.sidd_medium(), {"degraded": "NOISY", "clean": "GT"}),
        "spa": (mini.spa_test(), {"degraded": "/rain/", "clean": "/gt/"}),
        "realblur": (mini.realblur_flat(), {"degraded": "/input/", "clean": "/target/"}),
        "rain13k": (mini.rain13k(), {"degraded": "/input/", "clean": "/target/"}),
        "gopro": (mini.gopro_restormer(), {"degraded": "/input/", "clean": "/target/"}),
        "cc15": (
            mini.as_zip(mini.images(f"a_{role}.png" for role in ("real", "mean"))),
            {"degraded": "_real", "clean": "_mean"},
        ),
        "polyu": (
            mini.as_zip(mini.images(f"CroppedImages/a_{role}.JPG" for role in ("real", "mean"))),
            {"degraded": "_real", "clean": "_mean"},
        ),
    }
    content, marks = archives[kind]
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        names = [name for name in opened.namelist() if not re.search("/$|__MACOSX", name)]
        kept = {name: opened.read(name) for name in names if marks[side] in name}
    assert kept
    lacking = "clean" if side == "degraded" else "degraded"
    assert f"has no {lacking} partner" in raw.put({"a.zip": mini.as_zip(kept)}).refused(kind)


def test_a_scene_in_two_splits_is_told(raw: Raw) -> None:
    files = mini.realblur()
    lists = {name: content for name, content in files.items() if name.endswith(".txt")}
    files["RealBlur_J_test_list.txt"] += lists["RealBlur_J_train_list.txt"].splitlines(True)[0]
    message = raw.put({"a.tar": mini.as_tar(files)}).refused("realblur")
    assert "scene 'J/scene001' is in the splits" in message


def test_one_bad_image_among_many_can_be_left_out(
    raw: Raw, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = mini.image("x.png")[:900]
    raw.put({"a.zip": changed(mini.rain13k(20), input_8=bad, target_12=b"")})
    store = raw.prepare("rain13k", skip_unreadable=True)["synthetic"]
    assert len(store) == 18 and not {"8", "12"} & set(store.ids)
    told = capfd.readouterr().err
    assert "left out '8': train/Rain13K/input/8.png: damaged" in told
    assert "left out 2 of 20 images" in told


def test_a_bad_test_image_is_never_left_out(raw: Raw) -> None:
    raw.put({"a.zip": changed(mini.spa_kaggle(), test_rain_6=b"no image")})
    assert "test/rain/6.png: not an image" in raw.refused("spa", skip_unreadable=True)


def test_no_tool_for_rar_is_told(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    raw.put({"exploration_database_and_code.rar": b"Rar!\x1a\7\0" + bytes(99)})
    assert "unpacking rar needs one of unrar, 7z" in raw.refused("dfwb")


def test_rar_is_unpacked_by_a_tool(
    raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is made by hand, the tool stands for unrar: neither can be had everywhere."""
    name = "exploration_database_and_code/pristine_images/00001.bmp"
    content = mini.image(name)
    raw.put({"w.rar": rar_stored({name: content})})
    files = tmp_path / "files" / name
    files.parent.mkdir(parents=True)
    files.write_bytes(content)
    tool = tmp_path / "bin" / "unrar"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nfor last; do :; done\ncp -r {tmp_path}/files/* "$last"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    store = raw.prepare("dfwb")["synthetic"]
    assert_array_equal(store.image("clean", 0), mini.pixels(name))
    files.write_bytes(content[:-1])  # the tool gives another size than the archive declares
    with pytest.raises(UserError, match=r"w.rar: unrar unpacked 1 of 1 files as declared"):
        raw.prepare("dfwb")
    raw.put({"w.rar": rar_stored({"../../evil.bmp": content})})
    with pytest.raises(UserError, match=r"'../../evil.bmp' lies outside of the archive"):
        raw.prepare("dfwb")


def rar_stored(files: dict[str, bytes]) -> bytes:
    """Return a RAR archive of version 4 with stored files (technote.txt of unrar)."""

    def block(kind: int, flags: int, body: bytes) -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head

    content = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    for name, data in files.items():
        raw_name = name.replace("/", "\\").encode()
        about = struct.pack("<IIBIIBBHI", len(data), len(data), 3, zlib.crc32(data), 0x50210000,
                            20, 0x30, len(raw_name), 0o100644)  # fmt: skip
        content += block(0x74, 0x8000, about + raw_name) + data
    return content + block(0x7B, 0x4000, b"")


# Killed


JOB = """
import sys, time
from pathlib import Path
import pipeline.sources.archives.unpacking as unpacking
from pipeline.config.read import check
from pipeline.datasets.prepare import prepare
from pipeline.sources import photographs
from pipeline.config import compose
from omegaconf import OmegaConf
import dataclasses
from pipeline.config.sources import Crop, Crops

source = check(OmegaConf.to_container(OmegaConf.load("params.yaml"))).sources["realblur"]
source = dataclasses.replace(
    source, expected_images=None, lists_md5=None,
    crops=Crops(None, Crop(16, 2, 0), Crop(16, 2, 0)),
)
# slow enough to be hit in the middle
decode = photographs.decode
unpacking._CHUNK = 4096
read = unpacking.gzip.GzipFile.read
unpacking.gzip.GzipFile.read = lambda self, n=-1: (time.sleep(0.01), read(self, n))[1]
photographs.decode = lambda *given: (time.sleep(0.06), decode(*given))[1]
print("ready", flush=True)
prepare(source, Path("raw/set"), Path("prepared/set"))
"""


def test_killed_while_unpacking_and_packing_it_ends_with_the_same_bytes(
    raw: Raw, tmp_path: Path
) -> None:
    compose(["sources=[skimage,realblur]"], tmp_path / "params.yaml")
    raw.put({"RealBlur.tar.gz": mini.as_tar_gz(mini.realblur())})
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", JOB]

    def started() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True, stdout=-1, stderr=-3
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    def hashes() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in raw.prepared.iterdir()
                if not path.name.startswith(".")}  # fmt: skip

    process, begun = started(), time.monotonic()
    assert process.wait() == 0
    duration, expected = time.monotonic() - begun, hashes()
    shutil.rmtree(raw.prepared)
    generator, seen = random.Random(0), set()
    for moment in range(12):
        process = started()
        time.sleep((moment + generator.uniform(0, 1)) / 14 * duration)
        seen.add("unpacking" if not raw.prepared.exists() else "packing")
        process.kill()
        process.wait()
        whole = hashes() if raw.prepared.exists() else {}
        assert all(expected[name] == content for name, content in whole.items())
    assert seen == {"unpacking", "packing"}
    assert started().wait() == 0
    assert hashes() == expected
    assert [path.name for path in raw.folder.parent.iterdir()] == ["set"]
    assert not [path for path in raw.prepared.iterdir() if path.name.startswith(".")]
