"""Fetching from a real server on loopback: whole and right, or refused with the reason."""

import contextlib
import email.utils
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gdown.download  # noqa: F401  (the module, which the function of this name hides)
import pytest
import requests

from pipeline.config.sources import Archive, Crops, FetchedSource, Version
from pipeline.runtime.errors import UserError
from pipeline.runtime.progress import ProgressBars
from pipeline.sources import fetch
from pipeline.sources.archives.reading import CHECKSUMS
from pipeline.sources.fetch import FETCHED, address, answers, download, http
from tests.helpers import miniatures as mini
from tests.helpers.file_server import Fault, FileServer, serving

SMALL = mini.as_zip({"a/1.txt": b"one", "a/2.txt": b"two" * 50})
BIG = mini.as_zip({f"{i}.bin": os.urandom(2**18) for i in range(12)})
"""Three MiB: several pieces of the transfer."""
OTHER = mini.as_zip({f"{i}.bin": os.urandom(2**18) for i in range(12)})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def version(*urls: str, of: bytes | None = None, **known: Any) -> Version:
    """Return a version with nothing known, or all of the content ``of``."""
    if of is not None:
        known = {"size_bytes": len(of), "sha256": sha256(of)} | known
    return Version(urls, **({"size_bytes": None, "sha256": None, "md5": None} | known))


class Fetching:
    """A source, the folder it is fetched into, and the server."""

    def __init__(self, folder: Path, server: FileServer) -> None:
        self.root, self.server = folder, server
        self.folder, self.downloads = folder / "raw" / "set", folder / "downloads"
        self.record = folder / "checksums" / "set.txt"

    def settings(self, *versions: Version, location: str = FETCHED, **more: Any) -> FetchedSource:
        archives = {"main": Archive("x.zip", None, versions)} | more
        return FetchedSource("sidd", location, "MIT", "http://page", archives, (), None, None, None,
                             None, None, None, False, None, Crops(None, None, None))  # fmt: skip

    def get(self, *versions: Version, **options: Any) -> bytes:
        download(self.settings(*versions, **options), self.folder)
        return self.content()

    def content(self) -> bytes:
        """Return what was fetched, after checking that nothing else is left anywhere."""
        content = (self.folder / "x.zip").read_bytes()
        assert {path.name for path in self.folder.iterdir()} == {"x.zip", CHECKSUMS}
        assert (self.folder / CHECKSUMS).read_text() == f"{sha256(content)}  x.zip\n"
        assert not self.left(), self.left()
        return content

    def refused(self, *versions: Version, **options: Any) -> str:
        with pytest.raises(UserError) as caught:
            download(self.settings(*versions, **options), self.folder)
        assert "\n" not in str(caught.value)
        assert not [path for path in self.folder.glob("*") if path.name != CHECKSUMS]
        return str(caught.value)

    def left(self) -> list[str]:
        return [path.name for path in self.downloads.rglob("*") if path.is_file()]

    def ranges(self) -> list[str | None]:
        return [wanted for _, wanted in self.server.requests]


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as running:
        yield running


@pytest.fixture
def fetching(tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Fetching:
    monkeypatch.setattr(address, "BACKOFF_S", 0.01)
    monkeypatch.setattr(address, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(answers, "TIMEOUT_S", (2, 0.5))
    monkeypatch.setenv("PIPELINE_DOWNLOADS", str(tmp_path / "downloads"))
    monkeypatch.delenv("PIPELINE_ARCHIVES", raising=False)
    return Fetching(tmp_path, server)


# What goes right


@pytest.mark.parametrize("known", ["all", "size", "md5", "nothing"])
def test_a_file_is_fetched_once(fetching: Fetching, known: str) -> None:
    what = {
        "all": {"size_bytes": len(BIG), "sha256": sha256(BIG)},
        "size": {"size_bytes": len(BIG)},
        "md5": {"md5": hashlib.md5(BIG).hexdigest()},
        "nothing": {},
    }[known]
    url = fetching.server.add("x.zip", BIG)
    assert fetching.get(version(url, **what)) == BIG
    assert fetching.get(version(url, **what)) == BIG
    assert fetching.ranges() == [None], "what is there and right is not fetched again"


def test_licence_and_page_are_told_once(
    fetching: Fetching, capfd: pytest.CaptureFixture[str]
) -> None:
    url = fetching.server.add("x.zip", SMALL)
    fetching.get(version(url))
    assert capfd.readouterr().err.count("set: licence MIT; see http://page") == 1
    fetching.get(version(url))
    assert "licence" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("status", 500)],
        [Fault("status", 503), Fault("status", 429), Fault("status", 408)],
        [Fault("cut", 1_000_000)],
        [Fault("cut", 0)],
        [Fault("cut", 1), Fault("cut", 1_100_000), Fault("cut", 2_000_001)],
        [Fault("cut", len(BIG) - 1)],
        [Fault("cut", 1_000_000), Fault("status", 500), Fault("no range")],
        [Fault("cut", 1_000_000), Fault("shifted range", 7)],
        [Fault("stall", 0.8)],
        [Fault("length", len(BIG) + 5)],
        [Fault("length", 1_000_000)],
        [Fault("no length")],
        [Fault("no tag")],
        [Fault("weak tag")],
        [Fault("cut", 2_000_000), *[Fault("status", 502)] * 8],
    ],
    ids=lambda faults: ", ".join(f"{fault.kind} {fault.value:g}" for fault in faults),
)
@pytest.mark.parametrize("known", [True, False])
def test_after_a_fault_the_same_address_gives_the_rest(
    fetching: Fetching, faults: list[Fault], known: bool
) -> None:
    url = fetching.server.add("x.zip", BIG)
    fetching.server.fail("x.zip", *faults)
    if faults[0].kind == "length" and (known or faults[0].value < len(BIG)):
        # the server calls the file longer or shorter than it is: another address must give it
        spare = fetching.server.add("spare.zip", BIG)
        got = fetching.get(version(url, spare, of=BIG if known else None))
    else:
        got = fetching.get(version(url, of=BIG if known else None))
    assert got == BIG


def test_the_waits_cover_an_outage_of_minutes_of_what_has_answered(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a quarter of one where nothing answers: a mirror may."""
    waited: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            return False

    monkeypatch.setattr(address, "BACKOFF_S", 1.0)
    monkeypatch.setattr(address, "LONGEST_WAIT_S", 60.0)
    url = fetching.server.add("x.zip", BIG)
    fetching.server.always["/x.zip"] = Fault("status", 503)
    for address_, least, most in ((url, 120, 300), ("http://127.0.0.1:9/x.zip", 10, 20)):
        waited.clear()
        with pytest.raises(answers.Refused, match=r"times in a row"):
            address.transfer(
                address_, fetching.root / "x", version(address_), lambda *_: None, Stop()
            )
        assert least < sum(waited) < most


@pytest.mark.parametrize("drives", [False, True])
@pytest.mark.parametrize("dated", [False, True])
def test_a_server_is_asked_again_when_it_said(
    fetching: Fetching, drive: Callable[[str], None], drives: bool, dated: bool
) -> None:
    asked = email.utils.formatdate(time.time() + 2.5, usegmt=True) if dated else "1"
    name = "drive.zip" if drives else "x.zip"
    url = fetching.server.add(name, BIG)
    drive("")
    busy = [Fault("status", 429, asked)] * (2 if drives else 1)  # gdown does not tell its status
    fetching.server.fail(name, *busy)
    started = time.monotonic()
    assert fetching.get(version(DRIVE if drives else url)) == BIG
    assert 0.9 < time.monotonic() - started < 5


def test_it_goes_on_from_where_it_was_cut(fetching: Fetching) -> None:
    url = fetching.server.add("x.zip", BIG)
    fetching.server.fail("x.zip", Fault("cut", 2_500_000))
    assert fetching.get(version(url)) == BIG
    (first, second) = fetching.ranges()
    assert first is None and second is not None
    assert 2_000_000 < int(re.sub(r"\D", "", second)) <= 2_500_000


def test_a_file_that_changed_meanwhile_is_not_glued_together(fetching: Fetching) -> None:
    url = fetching.server.add("x.zip", BIG)
    fetching.server.always["/x.zip"] = Fault("cut after", 0)
    fetching.server.fail("x.zip", Fault("cut", 2_000_000))
    fetching.refused(version(url))
    assert fetching.left(), "what was fetched waits for the next run"
    fetching.server.always.clear()
    for changed in (OTHER, OTHER + b"."):  # of the same size, of another size
        fetching.server.add("x.zip", changed)
        assert fetching.get(version(url)) == changed
        (fetching.folder / "x.zip").unlink()
        fetching.record.unlink()


def test_pieces_of_two_files_are_found_by_the_checksum(fetching: Fetching) -> None:
    """A mirror without marks of its version goes on with another mirror's bytes."""
    bad = fetching.server.add("bad.zip", OTHER)
    fetching.server.always["/bad.zip"] = Fault("cut", 2_000_000)
    good = fetching.server.add("good.zip", BIG)
    assert fetching.get(version(bad, good, of=BIG)) == BIG


def test_a_mirror_goes_on_with_the_same_bytes_of_another(fetching: Fetching) -> None:
    first = fetching.server.add("first.zip", BIG)
    fetching.server.always["/first.zip"] = Fault("cut", 2_000_000)
    second = fetching.server.add("second.zip", BIG)
    assert fetching.get(version(first, second, of=BIG)) == BIG
    path, wanted = fetching.server.requests[-1]
    assert path == "/second.zip" and wanted is not None


def test_a_finished_file_is_not_fetched_after_a_kill_before_its_renaming(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fetching.server.add("x.zip", BIG)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(fetch, "_move", killed)
        download(fetching.settings(version(url, of=BIG)), fetching.folder)
    assert fetching.get(version(url, of=BIG)) == BIG
    assert len(fetching.server.requests) == 1


@pytest.mark.parametrize("growing", [True, False])
def test_a_server_without_ranges_that_always_cuts_is_left_for_the_mirror(
    fetching: Fetching, growing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At two places in turn, or a little later each time."""
    bad, good = fetching.server.add("bad.zip", BIG), fetching.server.add("good.zip", BIG)
    monkeypatch.setattr(http, "_CHUNK", 2**14)
    step = len(BIG) // 100
    places = [step * (n + 2) if growing else step * (2 + 2 * (n % 2)) for n in range(80)]
    fetching.server.always["/bad.zip"] = Fault("status", 404)
    fetching.server.fail("bad.zip", *(Fault("cut, no range", place) for place in places))
    assert fetching.get(version(bad, good)) == BIG
    assert len([path for path, _ in fetching.server.requests if path == "/bad.zip"]) < 12


def test_an_address_that_is_always_cut_and_always_wrong_is_left_for_the_mirror(
    fetching: Fetching,
) -> None:
    bad, good = fetching.server.add("bad.zip", OTHER), fetching.server.add("good.zip", BIG)
    fetching.server.fail("bad.zip", *[Fault("cut", 2_500_000), Fault("none")] * 20)
    assert fetching.get(version(bad, good, of=BIG)) == BIG
    assert len([path for path, _ in fetching.server.requests if path == "/bad.zip"]) == 4


@pytest.mark.parametrize(
    "fault",
    [Fault("status", 404), Fault("status", 403), Fault("status", 500), Fault("redirect"),
     Fault("page"), Fault("disguised page"), Fault("cut after", 0), Fault("no place")],
    ids=lambda fault: f"{fault.kind} {fault.value:g}",
)  # fmt: skip
def test_the_next_address_is_tried(fetching: Fetching, fault: Fault) -> None:
    bad, good = fetching.server.add("bad.zip", BIG), fetching.server.add("good.zip", BIG)
    fetching.server.always["/bad.zip"] = fault
    if fault.kind == "no place":
        fetching.server.fail("bad.zip", Fault("cut", 1_000_000))
    assert fetching.get(version(bad, good)) == BIG


def test_the_next_version_is_tried_and_held_against_its_own_checksum(fetching: Fetching) -> None:
    other = fetching.server.add("other.zip", OTHER)
    gone = fetching.server.url + "/gone.zip"
    md5 = hashlib.md5(OTHER).hexdigest()
    packings = version(gone, of=BIG), version(other, md5=md5, size_bytes=len(OTHER))
    assert fetching.get(*packings) == OTHER
    assert fetching.get(*packings) == OTHER
    assert len(fetching.server.requests) == 2


def test_a_server_that_is_not_there(fetching: Fetching) -> None:
    good = fetching.server.add("x.zip", SMALL)
    assert fetching.get(version("http://127.0.0.1:9/x.zip", good)) == SMALL


def test_archives_are_fetched_at_the_same_time(fetching: Fetching) -> None:
    fetching.server.seconds_per_mib = 0.4
    more = {
        name: Archive(f"{name}.zip", None, (version(fetching.server.add(f"{name}.zip", BIG)),))
        for name in ("b", "c")
    }
    url = fetching.server.add("x.zip", BIG)
    started = time.monotonic()
    download(fetching.settings(version(url), **more), fetching.folder)
    assert time.monotonic() - started < 2.5, "one after the other takes 3.6 s"
    assert (fetching.folder / CHECKSUMS).read_text().count(sha256(BIG)) == 3


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    fetching: Fetching, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runtime.progress.SECONDS_BETWEEN_LINES", 0)
    fetching.get(version(fetching.server.add("x.zip", BIG)))
    assert re.search(r"set: \d.* MB of 3\.\d MB, .*/s, \d+ s left", capfd.readouterr().err)


# What is refused


MANUAL = "By hand: find it at http://page, put it at .*downloads/set/x.zip and run"


@pytest.mark.parametrize(
    ("content", "known", "message"),
    [
        (OTHER, {"of": BIG}, "expected .* sha256 SHA; found .* sha256 FOUND"),
        (BIG[:-1], {"of": BIG}, r"expected \d+ bytes, the server has \d+"),
        (BIG + b"x", {"of": BIG}, r"expected \d+ bytes, the server has \d+"),
        (OTHER, {"md5": hashlib.md5(BIG).hexdigest()}, "expected any size, md5 .*; found .* md5"),
        (BIG[:-100], {}, "bytes that are no archive"),
        (b"x" * 29, {}, "found 29 bytes that are no archive"),
        (b"PK\5\6" + bytes(18), {}, "found 22 bytes that hold no file"),
        (b"", {}, "found an empty file"),
        (b"<html>Sign in</html>", {}, "found a web page of 20 bytes, expected an archive"),
        (b"\n <!DOCTYPE html>", {}, "found a web page"),
        (mini.as_tar_gz({"1.bin": BIG})[:-9], {}, r"\d+ bytes of a gzip file that is cut off"),
        (mini.as_tar({"1.bin": BIG})[:-20_000], {}, "bytes that are no archive .*end of data"),
    ],
)
def test_what_is_not_the_file_is_refused(
    fetching: Fetching, content: bytes, known: dict[str, Any], message: str
) -> None:
    url = fetching.server.add("x.zip", content)
    told = fetching.refused(version(url, **known))
    pattern = message.replace("SHA", sha256(BIG)).replace("FOUND", sha256(content))
    assert re.search(pattern, told), told
    assert told.startswith("x.zip: could not be fetched") and re.search(MANUAL, told)
    assert "x.zip.partial" not in fetching.left(), "a wrong file is not gone on with"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("status", 404), "HTTP 404"),
        (Fault("status", 500), "HTTP 500 .*9 times in a row"),
        (Fault("redirect"), "a web page instead of the file"),
        (Fault("cut after", 0), "5 times from the first byte on"),
        (Fault("stall", 5), "timed out"),
    ],
    ids=lambda value: str(value),
)
def test_a_lasting_fault_is_told_with_the_manual_steps(
    fetching: Fetching, fault: Fault, message: str
) -> None:
    url = fetching.server.add("x.zip", SMALL if fault.kind == "stall" else BIG)
    fetching.server.always["/x.zip"] = fault
    if fault.kind == "stall":
        url = fetching.server.add("x.zip", BIG)
    told = fetching.refused(version(url))
    assert re.search(message, told), told
    assert re.search(MANUAL, told)


def test_no_address_is_told(fetching: Fetching) -> None:
    told = fetching.refused()
    assert "(no address is known)" in told and re.search(MANUAL, told)
    assert "-S sources.set.location=PATH" in told


def test_every_missing_archive_is_told_in_one_sentence(fetching: Fetching) -> None:
    gone = version(fetching.server.url + "/gone.zip")
    more = {f"part_{n}": Archive(f"real.zip.0{n}", None, ()) for n in range(3)}
    told = fetching.refused(gone, **more)
    assert re.search(
        r"^x.zip: could not be fetched \(http://\S+: HTTP 404 [\w ]+\);"
        r" real.zip.00, real.zip.01, real.zip.02: could not be fetched \(no address is known\)\."
        " By hand: find them at http://page, put each under its name into"
        rf" {fetching.downloads}/set and run the same command again; or name",
        told,
    ), told


def test_where_to_put_a_file_is_told_as_an_absolute_path(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fetching.root)
    monkeypatch.delenv("PIPELINE_DOWNLOADS")
    assert f"put it at {fetching.downloads / 'set' / 'x.zip'} and run" in fetching.refused()


def test_a_disk_too_small_is_told_before_anything_is_fetched(fetching: Fetching) -> None:
    url = fetching.server.add("x.zip", SMALL)
    told = fetching.refused(version(url, size_bytes=2**60))
    assert re.search(r"MiB free, [\d,]+ MiB needed", told)
    assert not fetching.server.requests


# What a first download was is what a later one must be


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_first_checksum_is_kept_and_enforced(
    fetching: Fetching, elsewhere: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also on another machine, which has of data/raw nothing and of git the record."""
    url = fetching.server.add("x.zip", BIG)
    assert fetching.get(version(url)) == BIG
    assert fetching.record.read_text() == f"{sha256(BIG)}  x.zip\n"
    told = f"set: {fetching.record} notes what x.zip was: keep it in git"
    assert told in capfd.readouterr().err
    assert fetching.get(version(url)) == BIG
    assert told not in capfd.readouterr().err
    (fetching.folder / "x.zip").unlink()
    if elsewhere:
        shutil.rmtree(fetching.folder)
    fetching.server.add("x.zip", OTHER)
    told = fetching.refused(version(url))
    assert sha256(BIG) in told and sha256(OTHER) in told
    assert "the checksum of its first download, noted in data/checksums; if the new file" in told
    fetching.record.write_text("")
    assert fetching.get(version(url)) == OTHER


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_a_copy_of_the_users_does_not_change_the_first_checksum(
    fetching: Fetching, kind: str
) -> None:
    """Not by being there, not by its own checksum under the same name."""
    url = fetching.server.add("x.zip", BIG)
    assert fetching.get(version(url)) == BIG
    mine = fetching.root / "mine" / "x.zip"
    mine.parent.mkdir()
    mine.write_bytes(OTHER)
    for name in ("x.zip", "y.zip"):
        mine = mine.rename(mine.with_name(name))
        location = str(mine if kind == "archive" else mine.parent)
        download(fetching.settings(version(url), location=location), fetching.folder)
        assert (fetching.folder / name).read_bytes() == OTHER
        assert fetching.get(version(url)) == BIG
    assert fetching.record.read_text() == f"{sha256(BIG)}  x.zip\n"


def test_a_file_that_was_damaged_later_is_fetched_anew(fetching: Fetching) -> None:
    url = fetching.server.add("x.zip", BIG)
    for known in ({"of": BIG}, {}):
        fetching.get(version(url, **known))
        content = bytearray(BIG)
        content[1_000_000] ^= 1
        (fetching.folder / "x.zip").write_bytes(content)
        download(fetching.settings(version(url, **known)), fetching.folder)
        assert (fetching.folder / "x.zip").read_bytes() == BIG
        (fetching.downloads / "set" / "x.zip.replaced").unlink()


def test_what_was_fetched_and_no_longer_belongs_there_is_removed(fetching: Fetching) -> None:
    url = fetching.server.add("x.zip", SMALL)
    old = {"old": Archive("old.zip", None, (version(fetching.server.add("old.zip", BIG)),))}
    download(fetching.settings(version(url), **old), fetching.folder)
    assert (fetching.folder / "old.zip").exists()
    assert fetching.get(version(url)) == SMALL


@pytest.mark.parametrize("fails", [True, False])
def test_what_nobody_fetched_is_kept(
    fetching: Fetching, fails: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether or not the fetch succeeds; read-only and under a second name, as in DVC's cache."""
    fetching.folder.mkdir(parents=True)
    for name, content in {"mine.zip": OTHER, "note.txt": b"mine"}.items():
        (fetching.folder / name).write_bytes(content)
        (fetching.folder / name).chmod(0o444)
    (fetching.root / "cache").hardlink_to(fetching.folder / "mine.zip")
    kept = fetching.downloads / "set"
    kept.mkdir(parents=True)
    (kept / "mine.zip").write_bytes(BIG)
    if fails:
        fetching.refused()
    else:
        download(fetching.settings(version(fetching.server.add("x.zip", SMALL))), fetching.folder)
        assert {path.name for path in fetching.folder.iterdir()} == {"x.zip", CHECKSUMS}
    found = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert found == {"mine.zip": BIG, "mine.zip.2": OTHER, "note.txt": b"mine"}
    assert (fetching.root / "cache").read_bytes() == OTHER
    assert f"mine.zip is none of its archives: now {kept / 'mine.zip.2'}" in capfd.readouterr().err


def test_a_link_of_the_users_still_leads_to_its_file(fetching: Fetching) -> None:
    fetching.folder.mkdir(parents=True)
    (fetching.folder.parent / "far.zip").write_bytes(BIG)
    (fetching.folder / "mine.zip").symlink_to("../far.zip")
    download(fetching.settings(version(fetching.server.add("x.zip", SMALL))), fetching.folder)
    assert (fetching.downloads / "set" / "mine.zip").read_bytes() == BIG


def test_a_wrong_file_under_the_right_name_is_kept(
    fetching: Fetching, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where nothing takes its place; there it is not taken for one put there by hand."""
    fetching.folder.mkdir(parents=True)
    (fetching.folder / "x.zip").write_bytes(OTHER)
    kept = fetching.downloads / "set" / "x.zip.replaced"
    fetching.refused(version(fetching.server.url + "/gone.zip", of=BIG))
    assert kept.read_bytes() == OTHER
    assert f"now {kept}; fetching it anew" in capfd.readouterr().err
    download(fetching.settings(version(fetching.server.add("x.zip", BIG), of=BIG)), fetching.folder)
    assert (fetching.folder / "x.zip").read_bytes() == BIG and kept.read_bytes() == OTHER


def test_a_file_under_the_name_of_its_address_is_found(fetching: Fetching) -> None:
    """First of all where it lies in the folder of the archives itself."""
    fetching.folder.mkdir(parents=True)
    (fetching.folder / "SIDD_Medium.zip").write_bytes(BIG)
    download(fetching.settings(version("http://127.0.0.1:9/SIDD_Medium.zip?a=b")), fetching.folder)
    assert (fetching.folder / "x.zip").read_bytes() == BIG


def test_the_first_checksum_is_kept_though_another_archive_fails(fetching: Fetching) -> None:
    url = fetching.server.add("x.zip", BIG)
    failing = {"other": Archive("y.zip", None, ())}
    with pytest.raises(UserError, match=r"y.zip: could not be fetched"):
        download(fetching.settings(version(url), **failing), fetching.folder)
    assert (fetching.folder / CHECKSUMS).read_text() == f"{sha256(BIG)}  x.zip\n"
    (fetching.folder / "x.zip").unlink()
    fetching.server.add("x.zip", OTHER)
    told = fetching.refused(version(url), **failing)
    assert sha256(BIG) in told and "the checksum of its first download" in told


def test_the_first_checksum_of_what_has_no_address_is_enforced(fetching: Fetching) -> None:
    given = fetching.downloads / "x.zip"
    given.parent.mkdir(parents=True)
    given.write_bytes(BIG)
    download(fetching.settings(), fetching.folder)
    (fetching.folder / "x.zip").unlink()
    given.write_bytes(OTHER)
    told = fetching.refused()
    assert sha256(BIG) in told and "the checksum of its first download" in told


# The disk, and what is told on the way


class Room:
    """Stands for the disk; notes how many bytes were asked for before the transfers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: dict[str, int] = {}
        monkeypatch.setattr(fetch, "require_space", self._ask)

    def _ask(self, folder: Path, needed: int) -> None:
        self.asked[folder.name] = needed


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


def test_only_what_is_still_to_come_needs_room(fetching: Fetching, room: Room) -> None:
    """One archive is ready, one half fetched, one lies in the folder of downloads, one is new."""
    known = version(fetching.server.add("x.zip", BIG), of=BIG)
    download(fetching.settings(known), fetching.folder)
    assert room.asked == {"set": len(BIG)}
    half = fetching.downloads / "set" / "half.zip.partial"
    half.write_bytes(BIG[:1_000_000])
    (fetching.downloads / "by_hand.zip").write_bytes(SMALL)
    more = {
        "half": Archive("half.zip", None, (version(fetching.server.add("half.zip", BIG), of=BIG),)),
        "by_hand": Archive("by_hand.zip", None, ()),
        "new": Archive("new.zip", 0.0005, (version(fetching.server.add("new.zip", OTHER)),)),
    }
    download(fetching.settings(known, **more), fetching.folder)
    assert room.asked == {"set": len(BIG) - 1_000_000 + len(SMALL) + 500_000}


def test_on_two_disks_both_need_room(
    fetching: Fetching, room: Room, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_DOWNLOADS", str(small_disk))
    partial = small_disk / "set" / "x.zip.partial"
    partial.parent.mkdir()
    partial.write_bytes(SMALL[:100])
    known = version(fetching.server.add("x.zip", SMALL), of=SMALL)
    download(fetching.settings(known), fetching.folder)
    assert room.asked == {"small_disk": len(SMALL) - 100, "set": len(SMALL)}
    assert (fetching.folder / "x.zip").read_bytes() == SMALL


def test_an_unknown_size_is_told(fetching: Fetching, capfd: pytest.CaptureFixture[str]) -> None:
    known = Archive("y.zip", None, (version(fetching.server.add("y.zip", BIG), of=BIG),))
    url = fetching.server.add("x.zip", SMALL)
    download(fetching.settings(version(url), other=known), fetching.folder)
    told = capfd.readouterr().err
    assert "set: still to come: 3.1 MB, and of unknown size x.zip" in told
    download(fetching.settings(version(url), other=known), fetching.folder)
    assert "unknown size" not in capfd.readouterr().err, "it is here"


def test_the_rate_leaves_out_what_an_earlier_run_has_fetched(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fetching.server.add("x.zip", BIG)
    fetching.server.always["/x.zip"] = Fault("cut after", 0)
    fetching.server.fail("x.zip", Fault("cut", 2_000_000))
    fetching.refused(version(url))
    fetching.server.always.clear()
    worked: list[int] = []

    class Watched(ProgressBars):
        def __exit__(self, *given: Any) -> None:
            worked.append(self.worked)
            super().__exit__(*given)

    monkeypatch.setattr(fetch, "ProgressBars", Watched)
    (begun,) = [path.stat().st_size for path in fetching.downloads.rglob("*.partial")]
    assert 1_000_000 < begun <= 2_000_000
    assert fetching.get(version(url)) == BIG
    assert worked == [len(BIG) - begun]


# The user's own copies


@pytest.mark.parametrize("place", ["downloads/set", "downloads", "shared/set", "shared"])
def test_a_file_put_there_by_hand_is_taken(
    fetching: Fetching, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_ARCHIVES", str(fetching.root / "shared"))
    given = fetching.root / place / "x.zip"
    given.parent.mkdir(parents=True)
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


DRIVE = "https://drive.google.com/uc?id=0123456789abcdefghijklmnopq"
CONFIRM = (
    '<html><form id="download-form" action="https://drive.usercontent.google.com/download">'
    '<input type="hidden" name="id" value="0123"><input type="hidden" name="confirm" value="t">'
    "</form></html>"
)
QUOTA = '<html><p class="uc-error-subcaption">Too many users have viewed this file</p></html>'


@pytest.fixture
def drive(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Send what goes to Google to the loopback server; set the page that a file shows first."""
    send = requests.Session.request
    page = ""

    def redirected(self: requests.Session, method: str, url: str, **more: Any) -> Any:
        if "drive.usercontent" in url or (url.startswith("https://drive.google") and not page):
            url = f"{fetching.server.url}/drive.zip"
        elif url.startswith("https://drive.google"):
            url = f"{fetching.server.url}/page"
        answer = send(self, method, url, **more)
        if url.endswith("/page"):
            answer.headers["Content-Type"] = "text/html; charset=utf-8"
        elif answer.ok:
            answer.headers["Content-Disposition"] = 'attachment; filename="drive.zip"'
        return answer

    def show(text: str) -> None:
        nonlocal page
        page = text
        fetching.server.add("page", text.encode())

    monkeypatch.setattr(requests.Session, "request", redirected)
    return show


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
