"""Archives as they are fetched, read without unpacking: zip (also cut into parts) and tar.

What cannot be read at random (tar.gz, rar) is unpacked once, beside the folder of the archives.
Nothing is ever written to a path that an archive names, except by an unpacking tool for rar,
whose listing is checked before and whose work is checked afterwards.
"""

import contextlib
import copy
import functools
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing
from pipeline.sources.archives.checks import require_inside, require_no_bomb
from pipeline.sources.archives.parts import PART, Parts, parts_of, require_all_parts
from pipeline.sources.archives.unpacking import unpacker_of

CHECKSUMS = "checksums.txt"
LOOSE = (".txt", ".mat")
"""Endings of files that are fetched as they are, without an archive around them."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold: the same bytes every day
MARK = ".unpacked_by_noise_space"
"""Proof that a folder of unpacked archives is ours."""
_CHUNK = 2**20
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that are unpacked in bounded steps


class Reader(Protocol):
    """What every open archive can do; any thread may do it."""

    def namelist(self) -> list[str]:
        """Return the names of all entries."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Return a file for reading."""
        ...


def write_archive(path: Path, entries: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
    """Write files into one uncompressed zip, sorted by name and undated: same files, same bytes."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, read in sorted(entries):
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), read())


def open_archive(path: Path) -> Reader:
    """Return an archive opened for reading; it stays open for the next call.

    Raises:
        UserError: the archive is missing or damaged, names a file outside of itself, or declares
            to unpack to a size that no photographs have.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: not found; 'dvc repro' or 'dvc checkout' makes it") from None
    try:
        return _opened(path, status.st_mtime_ns, status.st_size)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run 'dvc repro'") from None


def archives_in(folder: Path) -> list[Path]:
    """Return what ``open_archive`` can open of a folder, sorted; of a zip in parts, the first.

    Raises:
        UserError: a part is missing, or a folder lies among the archives.
    """
    require_no_folder(folder)
    unpacked = unpacked_folder(folder)
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        part = PART.fullmatch(path.name)
        if path.name == CHECKSUMS or (part and path != parts_of(path)[0]):
            continue
        found.append(unpacked / path.name if unpacker_of(path) else path)
    return found


def require_no_folder(folder: Path) -> None:
    """Raise UserError where a folder lies among archives: nobody said what it is."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir():
            raise UserError(
                f"{path}: found a folder, expected archives only; move it away, or name it with"
                f" -S sources.{folder.name}.location=PATH"
            )


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Unpack what cannot be read at random into a folder beside, which is removed at the end.

    Raises:
        UserError: damaged, a bomb, a path outside of the archive, no tool for rar, or a full disk.
    """
    scratch = unpacked_folder(folder)
    _remove(scratch)  # of a killed run
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            unpack = unpacker_of(path)
            if unpack is not None:
                scratch.mkdir(exist_ok=True)
                (scratch / MARK).touch()
                unpack(path, scratch / path.name)
        yield
    finally:
        _opened.cache_clear()
        _remove(scratch)


def _remove(scratch: Path) -> None:
    if not os.path.lexists(scratch):
        return
    if scratch.is_symlink() or not (scratch / MARK).is_file():
        raise UserError(f"{scratch}: found, but not unpacked by this project; move it away")
    shutil.rmtree(scratch, ignore_errors=True)


def unpacked_folder(folder: Path) -> Path:
    """Return where ``readable`` unpacks the archives of a folder."""
    return folder.parent / f".{folder.name}.unpacked"


@functools.lru_cache(maxsize=32)
def _opened(path: Path, modified_ns: int, size: int) -> Reader:
    if path.is_dir():
        return _Folder(path)
    if path.suffix.lower() in LOOSE:
        return _Loose(path)
    if tarfile.is_tarfile(path):
        return _Tar(path)
    require_all_parts(path)
    archive = _Zip(io.BufferedReader(Parts(path)) if PART.fullmatch(path.name) else path)
    for entry in archive.infolist():
        require_inside(path, entry.filename)
        if entry.compress_type not in _PACKINGS:
            raise UserError(
                f"{path}: {entry.filename!r} is packed by method {entry.compress_type}; expected"
                " stored or deflate: pack it anew"
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            require_inside(path, entry.filename, archive.read(entry).decode(errors="replace"))
        if entry.flag_bits & 1:
            raise UserError(f"{path}: {entry.filename!r} is encrypted; expected a plain zip")
    packed = sum(part.stat().st_size for part in parts_of(path))
    require_no_bomb(path, sum(entry.file_size for entry in archive.infolist()), packed)
    return archive


class _Zip(zipfile.ZipFile):
    """A zip of which no member unpacks to more, or to less, than it declares."""

    def read(self, name: str | zipfile.ZipInfo, pwd: bytes | None = None) -> bytes:
        entry = name if isinstance(name, zipfile.ZipInfo) else self.getinfo(name)
        asked = copy.copy(entry)
        # zipfile cuts at the declared size, and inflates all unless told how much is wanted
        asked.file_size += _CHUNK
        with self.open(asked, pwd=pwd) as file:
            content = file.read(entry.file_size + 1)
        if len(content) != entry.file_size:
            found = "more" if len(content) > entry.file_size else f"{len(content):,}"
            raise zipfile.BadZipFile(f"{entry.file_size:,} bytes declared, {found} found")
        return content


@dataclass(frozen=True)
class _Tar:
    """An uncompressed tar, listed once and then read at random."""

    path: Path

    @functools.cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        places, size = {}, self.path.stat().st_size
        with tarfile.open(self.path, "r:") as archive:
            for entry in archive:
                require_inside(self.path, entry.name)
                if entry.issym():
                    require_inside(self.path, entry.name, entry.linkname)
                if entry.isdev() or entry.issparse():
                    raise UserError(f"{self.path}: {entry.name!r} is no plain file")
                if entry.offset_data + entry.size > size:
                    raise tarfile.ReadError(f"{entry.name!r} is cut off")
                if entry.isreg():
                    places[entry.name] = (entry.offset_data, entry.size)
        return places

    def __post_init__(self) -> None:
        self.__dict__["_file"] = self.path.open("rb")
        _ = self._places

    def namelist(self) -> list[str]:
        return list(self._places)

    def read(self, name: str) -> bytes:
        offset, size = self._places[name]
        file: IO[bytes] = self.__dict__["_file"]
        return os.pread(file.fileno(), size, offset)

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.read(name))


@dataclass(frozen=True)
class _Folder:
    """Unpacked files."""

    path: Path

    def namelist(self) -> list[str]:
        found = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return [path.relative_to(self.path).as_posix() for path in found]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")


@dataclass(frozen=True)
class _Loose:
    """A file without an archive around it."""

    path: Path

    def namelist(self) -> list[str]:
        return [self.path.name]

    def read(self, name: str) -> bytes:
        return self.path.read_bytes()

    def open(self, name: str) -> IO[bytes]:
        return self.path.open("rb")
