"""The user's own copies, Google Drive, killed downloads."""

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import gdown.download  # noqa: F401  (the module, which the function of this name hides)
import pytest

from pipeline.config.sources import Archive
from pipeline.runtime.errors import UserError
from pipeline.sources import fetch
from pipeline.sources.archives.reading import CHECKSUMS
from pipeline.sources.fetch import FETCHED, download
from tests.helpers import miniatures as mini
from tests.helpers.file_server import Fault, FileServer
from tests.sources import test_fetch
from tests.sources.test_fetch import BIG, DRIVE, MANUAL, OTHER, SMALL, Fetching, sha256, version

drive = test_fetch.drive
fetching = test_fetch.fetching
server = test_fetch.server


# The user's own copies


@pytest.mark.parametrize("place", ["downloads/set", "downloads", "shared/set", "shared"])
def test_a_file_put_there_by_hand_is_taken(
    fetching: Fetching, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_ARCHIVES", str(fetching.root / "shared"))
    given = fetching.root / place / "x.zip"
    given.parent.mkdir(parents=True)
    (fetching.root / "shared").mkdir(exist_ok=True)
    given.write_bytes(BIG)
    download(fetching.settings(version("http://127.0.0.1:9/", of=BIG)), fetching.folder)
    assert (fetching.folder / "x.zip").read_bytes() == BIG == given.read_bytes()
    assert not fetching.server.requests


@pytest.mark.parametrize("place", ["shared/set", "shared"])
def test_a_file_is_found_under_the_name_of_its_address(
    fetching: Fetching, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several sets' ``train.zip`` only the one that it is; what is left gets in nobody's way."""
    monkeypatch.setenv("PIPELINE_ARCHIVES", str(fetching.root / "shared"))
    given = fetching.root / place / "train%20a.zip"
    given.parent.mkdir(parents=True)
    given = given.with_name("train a.zip")
    url = fetching.server.add("train%20a.zip", BIG)
    for wrong in (OTHER, SMALL):
        given.write_bytes(wrong)
        assert fetching.get(version(url, of=BIG)) == BIG
        assert len(fetching.server.requests) == 1 and given.read_bytes() == wrong
        (fetching.folder / "x.zip").unlink()
        fetching.server.requests.clear()
    given.write_bytes(BIG)
    assert fetching.get(version(url, of=BIG)) == BIG
    assert not fetching.server.requests


def test_a_wrong_file_put_there_by_hand_is_told(fetching: Fetching) -> None:
    given = fetching.downloads / "x.zip"
    given.parent.mkdir(parents=True)
    given.write_bytes(OTHER)
    told = fetching.refused(version(fetching.server.add("x.zip", BIG), of=BIG))
    assert str(given) in told and sha256(BIG) in told and sha256(OTHER) in told


def test_a_local_archive_stands_for_the_first(fetching: Fetching) -> None:
    mine = fetching.root / "SIDD.zip"
    mine.write_bytes(OTHER)
    more = Archive("y.zip", None, (version(fetching.server.add("y.zip", SMALL)),))
    settings = fetching.settings(version(fetching.server.url, of=OTHER), location=str(mine), y=more)
    download(settings, fetching.folder)
    found = {path.name: path.read_bytes() for path in fetching.folder.iterdir()}
    assert found.pop(CHECKSUMS).decode().splitlines() == [
        f"{sha256(OTHER)}  SIDD.zip", f"{sha256(SMALL)}  y.zip",
    ]  # fmt: skip
    assert found == {"SIDD.zip": OTHER, "y.zip": SMALL}


def test_a_local_archive_is_held_against_what_is_known(fetching: Fetching) -> None:
    mine = fetching.root / "SIDD.zip"
    mine.write_bytes(OTHER)
    told = fetching.refused(version(fetching.server.url, of=BIG), location=str(mine))
    assert re.search(f"SIDD.zip: expected .*{sha256(BIG)}; found .*{sha256(OTHER)}", told)
    assert told.endswith(
        "; if this copy is what you want, set sources.set.archives.main.versions=[]"
    )
    download(fetching.settings(location=str(mine)), fetching.folder)
    assert (fetching.folder / "SIDD.zip").read_bytes() == OTHER


@pytest.mark.parametrize("name", ["x.zip", "train.zip"])
def test_a_local_folder_is_held_against_what_is_known_by_name(
    fetching: Fetching, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The name here, or the last word of an address."""
    mine = fetching.root / "mine"
    mine.mkdir()
    (mine / name).write_bytes(OTHER)
    (mine / "more.zip").write_bytes(SMALL)
    known = version("http://127.0.0.1:9/data/train.zip", of=BIG)
    told = fetching.refused(known, location=str(mine))
    assert name in told and sha256(BIG) in told and "archives.main.versions=[]" in told
    (mine / name).write_bytes(BIG)
    download(fetching.settings(known, location=str(mine)), fetching.folder)
    assert {path.name for path in fetching.folder.iterdir()} == {name, "more.zip", CHECKSUMS}
    told = capfd.readouterr().err
    assert "more.zip: no archive of this name is known; taken as it is" in told
    assert f"{name}: no archive" not in told


def test_a_loose_file_of_a_local_folder_is_held_against_what_is_known(fetching: Fetching) -> None:
    mine = fetching.root / "mine"
    mine.mkdir()
    (mine / "blocks.mat").write_bytes(b"MATLAB")
    blocks = Archive("blocks.mat", None, (version("http://127.0.0.1:9/", size_bytes=7),))
    told = fetching.refused(location=str(mine), blocks=blocks)
    assert "blocks.mat: expected 7 bytes; found 6 bytes" in told
    assert "archives.blocks.versions=[]" in told


def test_a_cut_off_local_archive_is_told_by_name(fetching: Fetching) -> None:
    mine = fetching.root / "RealBlur.tar.gz"
    mine.write_bytes(mini.as_tar_gz(mini.realblur())[:-1000])
    told = fetching.refused(location=str(mine))
    assert "RealBlur.tar.gz: found" in told and "a gzip file that is cut off" in told


@pytest.mark.parametrize(("lacking", "place"), [("00", "first"), ("02", "last")])
def test_a_part_that_is_missing_from_a_local_archive_is_told(
    fetching: Fetching, lacking: str, place: str
) -> None:
    parts = mini.in_parts(BIG, "r.zip", 3)
    del parts[f"r.zip.{lacking}"]
    for name, content in parts.items():
        (fetching.root / name).write_bytes(content)
    told = fetching.refused(location=str(fetching.root / next(iter(parts))))
    assert re.search(rf"found the parts 0\d to 0\d of r.zip, of which the {place} is missing", told)


def test_a_folder_among_the_archives_is_told_and_left(fetching: Fetching) -> None:
    url = fetching.server.add("x.zip", SMALL)
    (fetching.folder / "unpacked" / "deep").mkdir(parents=True)
    mine = fetching.root / "mine.zip"
    mine.write_bytes(SMALL)
    for location in (FETCHED, str(mine), str(fetching.root)):
        with pytest.raises(UserError, match=r"raw/set/unpacked: found a folder, expected archives"):
            download(fetching.settings(version(url), location=location), fetching.folder)
    assert (fetching.folder / "unpacked" / "deep").is_dir()
    assert not fetching.server.requests


def test_all_parts_of_a_local_archive_are_taken(fetching: Fetching) -> None:
    parts = mini.in_parts(BIG, "r.zip", 3)
    for name, content in parts.items():
        (fetching.root / name).write_bytes(content)
    download(fetching.settings(location=str(fetching.root / "r.zip.00")), fetching.folder)
    assert {path.name for path in fetching.folder.iterdir()} == {*parts, CHECKSUMS}


def test_a_local_folder_stands_for_all(fetching: Fetching) -> None:
    mine = fetching.root / "mine"
    (mine / "deep" / "er").mkdir(parents=True)
    (mine / "deep" / "a.zip").write_bytes(SMALL)
    (mine / "deep" / "er" / "1.png").write_bytes(mini.image("1.png"))
    (mine / "list.txt").write_text("1.png")
    (mine / "other.pdf").write_text("no image")
    settings = fetching.settings(version("http://127.0.0.1:9/"), location=str(mine))
    download(settings, fetching.folder)
    download(settings, fetching.folder)
    names = {path.name for path in fetching.folder.iterdir()}
    assert names == {"a.zip", "folder.zip", CHECKSUMS}
    with zipfile.ZipFile(fetching.folder / "folder.zip") as packed:
        assert packed.namelist() == ["mine/deep/er/1.png", "mine/list.txt"]


def test_a_disk_too_small_for_a_loose_folder_is_told_before_packing(
    fetching: Fetching, small_disk: Path
) -> None:
    mine = fetching.root / "mine"
    mine.mkdir()
    with (mine / "1.png").open("wb") as file:
        file.truncate(2**40)  # no block of it is on the disk
    with pytest.raises(UserError, match=r"MiB free, 1,048,576 MiB needed"):
        download(fetching.settings(location=str(mine)), small_disk / "set")
    assert not list((small_disk / "set").iterdir())


@pytest.mark.parametrize("where", ["itself", "a link", "within", "above"])
def test_a_location_that_is_the_folder_of_the_archives_is_refused(
    fetching: Fetching, where: str
) -> None:
    url = fetching.server.add("x.zip", SMALL)
    fetching.get(version(url))
    (fetching.root / "link").symlink_to(fetching.folder)
    location = {"itself": fetching.folder, "a link": fetching.root / "link",
                "within": fetching.folder / "x.zip", "above": fetching.root}[where]  # fmt: skip
    with pytest.raises(UserError, match=r"sources.set.location: .* into which archives are copied"):
        download(fetching.settings(version(url), location=str(location)), fetching.folder)
    assert fetching.content() == SMALL


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_a_copy_takes_the_place_of_no_file_of_the_users(fetching: Fetching, kind: str) -> None:
    mine = fetching.root / "mine"
    mine.mkdir()
    (mine / "y.zip").write_bytes(BIG)
    fetching.folder.mkdir(parents=True)
    (fetching.folder / "y.zip").write_bytes(OTHER)
    location = str(mine / "y.zip" if kind == "archive" else mine)
    for _ in range(2):
        download(fetching.settings(location=location), fetching.folder)
        assert (fetching.folder / "y.zip").read_bytes() == BIG
        assert (fetching.downloads / "set" / "y.zip.replaced").read_bytes() == OTHER
        assert fetching.left() == ["y.zip.replaced"]


@pytest.mark.parametrize("what", ["nothing", "empty folder", "damaged"])
def test_a_wrong_location_is_told(fetching: Fetching, what: str) -> None:
    mine = fetching.root / "mine.zip"
    if what == "empty folder":
        mine.mkdir()
    elif what == "damaged":
        mine.write_bytes(BIG[:-50])
    with pytest.raises(UserError, match=r"mine.zip|x.zip"):
        download(fetching.settings(location=str(mine)), fetching.folder)


# Google Drive, answered by the server on loopback


CONFIRM = (
    '<html><form id="download-form" action="https://drive.usercontent.google.com/download">'
    '<input type="hidden" name="id" value="0123"><input type="hidden" name="confirm" value="t">'
    "</form></html>"
)


QUOTA = '<html><p class="uc-error-subcaption">Too many users have viewed this file</p></html>'


@pytest.mark.parametrize("page", ["", CONFIRM])
def test_google_drive(fetching: Fetching, drive: Callable[[str], None], page: str) -> None:
    fetching.server.add("drive.zip", BIG)
    drive(page)
    assert fetching.get(version(DRIVE, of=BIG)) == BIG


def test_google_drive_goes_on(fetching: Fetching, drive: Callable[[str], None]) -> None:
    fetching.server.add("drive.zip", BIG)
    drive("")
    fetching.server.fail("drive.zip", Fault("cut", 1_500_000))
    assert fetching.get(version(DRIVE)) == BIG
    assert any(wanted for wanted in fetching.ranges())


def test_google_drive_without_ranges_begins_anew(
    fetching: Fetching, drive: Callable[[str], None]
) -> None:
    fetching.server.add("drive.zip", BIG)
    drive("")
    fetching.server.fail("drive.zip", Fault("cut", 1_500_000))
    fetching.server.always["/drive.zip"] = Fault("no range")
    assert fetching.get(version(DRIVE)) == BIG


@pytest.mark.parametrize("page", ["", CONFIRM])
def test_google_drive_may_be_cut_as_often_as_it_goes_on(
    fetching: Fetching, drive: Callable[[str], None], page: str
) -> None:
    """Busy in between, which costs nothing of what is there."""
    fetching.server.add("drive.zip", BIG)
    drive(page)
    piece = sys.modules["gdown.download"].CHUNK_SIZE
    fetching.server.fail("drive.zip", Fault("cut", piece + 10))
    for number in range(2, 6):  # gdown asks for the file, then for its rest
        fetching.server.fail("drive.zip", *[Fault("status", 503), Fault("status", 429)] * 2)
        fetching.server.fail("drive.zip", Fault("none"), Fault("cut", piece * number + 10))
    assert fetching.get(version(DRIVE)) == BIG
    assert sum(wanted is not None for wanted in fetching.ranges()) >= 5, "cut 5, busy 8 times"


@pytest.mark.parametrize("fault", [Fault("cut, no range", 1_000_000), Fault("status", 503)])
def test_google_drive_is_given_up_where_it_does_not_go_on(
    fetching: Fetching, drive: Callable[[str], None], fault: Fault
) -> None:
    fetching.server.add("drive.zip", BIG)
    drive("")
    fetching.server.always["/drive.zip"] = fault
    told = fetching.refused(version(DRIVE))
    assert re.search(r"\d times (in a row|from the first byte on)", told), told
    assert len(fetching.server.requests) < 60


def test_what_google_drive_has_begun_is_removed_when_another_address_has_given_it(
    fetching: Fetching, drive: Callable[[str], None]
) -> None:
    fetching.server.add("drive.zip", OTHER)
    fetching.server.fail("drive.zip", Fault("cut", 1_000_000))
    fetching.server.always["/drive.zip"] = Fault("status", 503)
    drive("")
    good = fetching.server.add("good.zip", BIG)
    assert fetching.get(version(DRIVE), version(good, of=BIG)) == BIG


@pytest.mark.parametrize("moment", ["before its part is renamed", "after", "after that again"])
@pytest.mark.parametrize("known", [True, False])
def test_what_google_drive_has_given_whole_is_not_fetched_again(
    fetching: Fetching,
    drive: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    known: bool,
) -> None:
    fetching.server.add("drive.zip", BIG)
    drive("")

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    wanted = version(DRIVE, of=BIG if known else None)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        if moment == "before its part is renamed":
            patched.setattr(sys.modules["gdown.download"], "shutil", SimpleNamespace(move=killed))
        elif moment == "after":
            patched.setattr(fetch.drive, "shutil", SimpleNamespace(move=killed))
        else:
            patched.setattr(fetch, "_move", killed)
        download(fetching.settings(wanted), fetching.folder)
    assert fetching.left()
    before = len(fetching.server.requests)
    assert fetching.get(wanted) == BIG
    assert len(fetching.server.requests) == before


def test_google_drives_page_about_its_quota_is_told(
    fetching: Fetching, drive: Callable[[str], None]
) -> None:
    fetching.server.add("drive.zip", BIG)
    drive(QUOTA)
    told = fetching.refused(version(DRIVE))
    assert "Too many users have viewed this file" in told and re.search(MANUAL, told)
    good = fetching.server.add("x.zip", BIG)
    assert fetching.get(version(DRIVE, good)) == BIG


# Killed


JOB = """
import sys
from pathlib import Path
from pipeline.config.sources import Archive, Crops, FetchedSource, Version
from pipeline.sources.fetch import FETCHED, download
archives = {
    name: Archive(f"{name}.zip", None, (Version((f"{sys.argv[1]}/{name}.zip",), None, None, None),))
    for name in ("a", "b")
}
settings = FetchedSource("sidd", FETCHED, "MIT", "http://page", archives, (), None, None, None,
                         None, None, None, False, None, Crops(None, None, None))
print("ready", flush=True)
download(settings, Path("raw/set"))
"""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    server: FileServer, tmp_path: Path
) -> None:
    server.seconds_per_mib = 0.3
    server.add("a.zip", BIG)
    server.add("b.zip", OTHER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("PIPELINE_DOWNLOADS", None)
    environment.pop("PIPELINE_ARCHIVES", None)
    raw, whole = tmp_path / "raw" / "set", {"a.zip": BIG, "b.zip": OTHER}

    def started() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", JOB, server.url],
            cwd=tmp_path, env=environment, text=True, stdout=-1, stderr=-3,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    process, begun = started(), time.monotonic()
    assert process.wait() == 0
    duration = time.monotonic() - begun
    generator, kills = random.Random(0), 0
    shutil.rmtree(raw)
    for _ in range(12):
        process = started()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(0, duration))
        kills += process.poll() is None
        process.kill()
        process.wait()
        there = {path.name: path.read_bytes() for path in raw.glob("*.zip")}
        assert all(whole[name] == content for name, content in there.items()), "whole or not there"
        if there == whole:
            shutil.rmtree(raw)
    assert kills >= 6
    assert started().wait() == 0
    assert {path.name: path.read_bytes() for path in raw.glob("*.zip")} == whole
    assert any(wanted for _, wanted in server.requests), "it went on with what was there"
    assert not [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()]
    assert {path.name for path in raw.iterdir()} == {*whole, CHECKSUMS}
