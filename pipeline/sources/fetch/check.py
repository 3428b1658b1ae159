"""Is a file what it should be? By size and checksum, and by a look at how it begins and ends."""

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.sources import Version
from pipeline.runtime.errors import UserError
from pipeline.sources.archives.parts import PART
from pipeline.sources.archives.reading import LOOSE

_CHUNK = 2**22
_GZIP = b"\x1f\x8b"
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")

_NOTHING_KNOWN = Version((), None, None, None)


class Wrong(UserError):
    """A file is not what it should be."""


def require_right(path: Path, versions: Sequence[Version], recorded: str | None) -> str:
    """Return the SHA-256 of a file after holding it against what is known of it.

    Args:
        path: the file.
        versions: what it may be; none where nothing is known.
        recorded: the SHA-256 of its first download. It counts where a version has no checksum.

    Raises:
        Wrong: it is none of the versions, another file than at first, no archive at all or, where
            no checksum vouches for it, a gzip file that is cut off.
    """
    _require_archive(path)
    size, sha256, md5 = _measure(path, any(version.md5 for version in versions))
    expected = []
    for version in versions or [_NOTHING_KNOWN]:
        known = version.sha256 or (None if version.md5 else recorded)
        right = (
            version.size_bytes in (None, size)
            and known in (None, sha256)
            and version.md5 in (None, md5)
        )
        if right:
            if not (known or version.md5):
                _require_whole(path, size)
            return sha256
        bytes_text = "any size" if version.size_bytes is None else f"{version.size_bytes} bytes"
        hashes = [f"sha256 {known}"] if known else []
        hashes += [f"md5 {version.md5}"] if version.md5 else []
        expected.append(", ".join([bytes_text, *hashes]))
    hint = ""
    if recorded and recorded != sha256 and not any(v.sha256 or v.md5 for v in versions):
        hint = (
            " (the checksum of its first download, noted in data/checksums; if the new file is"
            " right, delete its line there)"
        )
    raise Wrong(
        f"{path}: expected {' or '.join(expected)}{hint}; found {size} bytes, sha256 {sha256}"
        + (f", md5 {md5}" if md5 else "")
    )


def _require_whole(path: Path, size: int) -> None:
    """Refuse a gzip file that is cut off: unlike the others it does not show this by its end."""
    with path.open("rb") as file:
        if file.read(2) != _GZIP:
            return
    try:
        with gzip.open(path) as unpacked:
            while unpacked.read(_CHUNK):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Wrong(
            f"{path}: found {size} bytes of a gzip file that is cut off or damaged ({error})"
        ) from None


def _measure(path: Path, with_md5: bool) -> tuple[int, str, str | None]:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            sha256.update(chunk)
            if with_md5:
                md5.update(chunk)
    return size, sha256.hexdigest(), md5.hexdigest() if with_md5 else None


def _require_archive(path: Path) -> None:
    name = path.name.removesuffix(".partial").lower()
    size = path.stat().st_size
    with path.open("rb") as file:
        begins = file.read(512)
    if begins.lstrip().lower().startswith(_PAGES):
        raise Wrong(f"{path}: found a web page of {size} bytes, expected an archive")
    if size == 0:
        raise Wrong(f"{path}: found an empty file")
    if name.endswith(LOOSE) or PART.fullmatch(name):
        return
    try:
        # by what it begins with: the versions of an archive share a name, not a way of packing
        if begins.startswith((_GZIP, b"Rar!")):
            entries = 1
        elif begins[257:262] == b"ustar" or name.endswith(".tar"):
            with tarfile.open(path, "r:") as tar:
                entries = sum(1 for _ in tar)
        else:
            with zipfile.ZipFile(path) as archive:
                entries = len(archive.namelist())
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise Wrong(f"{path}: found {size} bytes that are no archive ({error})") from None
    if not entries:
        raise Wrong(f"{path}: found {size} bytes that hold no file, expected an archive")
