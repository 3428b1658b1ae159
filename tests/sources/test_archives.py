"""Archives: what is read is what was packed; nothing leaves them; no bomb goes off."""

import gzip
import io
import os
import stat
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_space
from pipeline.sources.archives import checks as archive_checks
from pipeline.sources.archives import unpacking
from pipeline.sources.archives.reading import (
    MARK,
    archives_in,
    open_archive,
    readable,
    unpacked_folder,
)
from pipeline.sources.photographs import files_in
from tests.helpers import miniatures as mini


def names_in(folder: Path) -> list[str]:
    with readable(folder):
        return [file.name for file in files_in(folder)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


FILES = {"a/1.txt": b"one", "a/b/2.bin": bytes(range(256)) * 999, "3.txt": b""}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "parts"])
def test_what_is_read_is_what_was_packed(kind: str, raw: Path) -> None:
    makers = {"zip": mini.as_zip, "tar": mini.as_tar, "tar.gz": mini.as_tar_gz}
    if kind == "parts":
        for name, content in mini.in_parts(mini.as_zip(FILES), "x.zip", 7).items():
            (raw / name).write_bytes(content)
    else:
        (raw / f"x.{kind}").write_bytes(makers[kind](FILES))
    with readable(raw):
        found = {file.name: file.content() for file in files_in(raw)}
        for archive in archives_in(raw):
            with open_archive(archive).open("a/b/2.bin") as file:
                assert file.read(300) == FILES["a/b/2.bin"][:300]
    assert found == FILES, "without macOS's files and folders"
    assert not unpacked_folder(raw).exists()


def test_a_folder_that_is_not_ours_is_not_deleted(raw: Path) -> None:
    unpacked_folder(raw).mkdir()
    (unpacked_folder(raw) / "mine.txt").write_text("years of work")
    with pytest.raises(UserError, match="not unpacked by this project; move it"), readable(raw):
        pass
    assert (unpacked_folder(raw) / "mine.txt").exists()


def test_what_a_killed_run_unpacked_is_no_part_of_the_next(raw: Path) -> None:
    (raw / "x.tar.gz").write_bytes(mini.as_tar_gz(FILES))
    unpacked_folder(raw).mkdir()
    (unpacked_folder(raw) / MARK).touch()
    (unpacked_folder(raw) / "x.tar.gz").write_bytes(b"half")
    assert sorted(names_in(raw)) == sorted(FILES)


BAD_NAMES = ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:/evil.png",
             "C:\\evil.png"]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_path_out_of_the_archive_is_refused(name: str, kind: str, raw: Path) -> None:
    if kind == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, b"evil")
        (raw / "x.zip").write_bytes(file.getvalue())
    else:
        maker = mini.as_tar if kind == "tar" else mini.as_tar_gz
        (raw / f"x.{kind}").write_bytes(maker({name: b"evil"}))
    with pytest.raises(UserError, match=r"outside of the archive; do not trust this file"):
        names_in(raw)
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "C:\\secret"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_link_out_of_the_archive_is_refused(target: str, kind: str, raw: Path) -> None:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            entry = zipfile.ZipInfo("a/link.png")
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, target)
    else:
        with tarfile.open(fileobj=file, mode="w") as tar:
            link = tarfile.TarInfo("a/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    (raw / f"x.{kind}").write_bytes(file.getvalue())
    with pytest.raises(UserError, match=r"'a/link.png' links to .* outside of the archive"):
        names_in(raw)


def test_a_link_inside_is_no_file_of_a_tar(raw: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("a/1.png")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"one"))
        link = tarfile.TarInfo("b/2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/1.png"
        tar.addfile(link)
    (raw / "x.tar").write_bytes(file.getvalue())
    assert names_in(raw) == ["a/1.png"]


def test_a_device_is_refused(raw: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        device = tarfile.TarInfo("a/zero.png")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    (raw / "x.tar").write_bytes(file.getvalue())
    with pytest.raises(UserError, match=r"'a/zero.png' is no plain file"):
        names_in(raw)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused(kind: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_checks, "SMALL_BYTES", 10**6)
    zeros = {"a.png": bytes(30 * 10**6)}
    if kind == "zip":
        (raw / "x.zip").write_bytes(mini.as_zip(zeros))
    else:
        (raw / "x.tar.gz").write_bytes(gzip.compress(mini.as_tar(zeros)))
    with pytest.raises(UserError, match=r"bytes unpack to [\d,]+ or more; photographs do not"):
        names_in(raw)
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


def test_a_member_larger_than_declared_is_told(raw: Path) -> None:
    """Its declared size is cut to 5 in both places where a zip has it."""
    content = bytearray(mini.as_zip({"a.png": b"x" * 1000}))
    size = (1000).to_bytes(4, "little")
    assert content.count(size) == 2
    (raw / "x.zip").write_bytes(content.replace(size, (5).to_bytes(4, "little")))
    (file,) = files_in(raw)
    with pytest.raises(UserError, match=r"a.png: damaged"):
        file.content()


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_goes_on_beyond_its_declared_size_is_refused_early(
    raw: Path, packing: int
) -> None:
    """64 MiB of zeros, declared as 1,000 bytes with the checksum of these."""
    declared, real = 1000, 2**26
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("a.png", bytes(real))
    content = bytearray(file.getvalue())
    for old, new in ((real, declared), (zlib.crc32(bytes(real)), zlib.crc32(bytes(declared)))):
        place = content.rindex(old.to_bytes(4, "little"))
        content[place : place + 4] = new.to_bytes(4, "little")
    (raw / "x.zip").write_bytes(content)
    (member,) = files_in(raw)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"a.png: .*1,000 bytes declared, more found"):
            member.content()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_packing_that_cannot_be_read_in_steps_is_refused(raw: Path) -> None:
    with zipfile.ZipFile(raw / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"x" * 1000)
    with pytest.raises(UserError, match=r"packed by method 14; expected stored or deflate"):
        names_in(raw)


def test_a_damaged_member_is_told(raw: Path) -> None:
    content = bytearray(mini.as_zip({"a.png": os.urandom(1000)}))
    content[200] ^= 0xFF
    (raw / "x.zip").write_bytes(content)
    (file,) = files_in(raw)
    with pytest.raises(UserError, match=r"a.png: damaged"):
        file.content()


def test_an_encrypted_archive_is_told(raw: Path) -> None:
    content = bytearray(mini.as_zip({"a.png": b"x"}))
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the central directory
    (raw / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"'a.png' is encrypted; expected a plain zip"):
        names_in(raw)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_truncated_archive_is_told(kind: str, share: float, raw: Path) -> None:
    makers = {"zip": mini.as_zip, "tar": mini.as_tar, "tar.gz": mini.as_tar_gz}
    files = {f"{index}.png": os.urandom(30_000) for index in range(3)}
    content = makers[kind](files)
    if kind == "tar":  # its last bytes are padding
        content = content[: 3 * (512 + 30_208) + 1]
    (raw / f"x.{kind}").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"x\..*: damaged"):
        names_in(raw)
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ((0,), "found the parts 01 to 04 of x.zip, of which the first is missing or damaged"),
        ((4,), "found the parts 00 to 03 of x.zip, of which the last is missing or damaged"),
        ((0, 4), "found the parts 01 to 03 of x.zip, of which the first and the last is missing"),
        ((2,), "part 02 of x.zip is missing"),
    ],
)
def test_a_missing_part_is_told(lacking: tuple[int, ...], message: str, raw: Path) -> None:
    content = mini.as_zip({"a.bin": os.urandom(500_000)})
    for number, (name, part) in enumerate(mini.in_parts(content, "x.zip", 5).items()):
        if number not in lacking:
            (raw / name).write_bytes(part)
    with pytest.raises(UserError, match=message):
        names_in(raw)


def test_a_table_of_contents_over_the_edge_of_a_part_is_read(raw: Path) -> None:
    """The last of the parts may hold less than the end of the table of contents."""
    content = mini.as_zip(FILES)
    for name, part in {"x.zip.00": content[:-9], "x.zip.01": content[-9:]}.items():
        (raw / name).write_bytes(part)
    assert sorted(names_in(raw)) == sorted(FILES)


def test_a_folder_among_archives_is_told(raw: Path) -> None:
    (raw / "x.zip").write_bytes(mini.as_zip(FILES))
    (raw / "unpacked").mkdir()
    (raw / "unpacked" / "1.png").write_bytes(mini.image("1.png"))
    with pytest.raises(UserError, match=r"raw/unpacked: found a folder, expected archives only"):
        names_in(raw)


def test_a_disk_too_small_for_unpacking_is_told(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(folder: Path, needed: int) -> None:
        require_space(folder, 2**60)

    monkeypatch.setattr(unpacking, "require_space", no_space)
    (raw / "x.tar.gz").write_bytes(mini.as_tar_gz(FILES))
    with pytest.raises(UserError, match=r"MiB free, .* needed; free some disk space"):
        names_in(raw)


def test_an_archive_that_changes_is_read_anew(raw: Path) -> None:
    path = raw / "x.zip"
    path.write_bytes(mini.as_zip({"a.txt": b"old"}))
    assert open_archive(path).read("a.txt") == b"old"
    path.write_bytes(mini.as_zip({"a.txt": b"newer"}))
    assert open_archive(path).read("a.txt") == b"newer"
