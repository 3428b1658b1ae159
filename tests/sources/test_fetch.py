"""Fetching from a real server on loopback: whole and right, or refused with the reason."""

import email.utils
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gdown.download  # noqa: F401  (the module, which the function of this name hides)
import pytest
import requests

from pipeline.config.sources import Archive, Crops, FetchedSource, Version
from pipeline.runtime.errors import UserError
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


DRIVE = "https://drive.google.com/uc?id=0123456789abcdefghijklmnopq"


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
