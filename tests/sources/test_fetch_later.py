"""Later downloads, the disk, and what is said on the way."""

import shutil
from pathlib import Path
from typing import Any

import gdown.download  # noqa: F401  (the module, which the function of this name hides)
import pytest

from pipeline.config.sources import Archive
from pipeline.runtime.errors import UserError
from pipeline.runtime.progress import ProgressBars
from pipeline.sources import fetch
from pipeline.sources.archives.reading import CHECKSUMS
from pipeline.sources.fetch import download
from tests.helpers.file_server import Fault
from tests.sources import test_fetch
from tests.sources.test_fetch import BIG, OTHER, SMALL, Fetching, sha256, version

fetching = test_fetch.fetching
server = test_fetch.server


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
