"""Unpack what cannot be read at random: tar.gz, and rar where a tool for it is installed."""

import gzip
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_space
from pipeline.sources.archives.checks import require_inside, require_no_bomb

_CHUNK = 2**20
_RAR_TOOLS = {
    "unrar": ["x", "-y", "-idq", "{archive}", "{folder}/"],
    "7z": ["x", "-y", "-bd", "-o{folder}", "{archive}"],
    "unar": ["-quiet", "-no-directory", "-output-directory", "{folder}", "{archive}"],
    "bsdtar": ["-x", "-f", "{archive}", "-C", "{folder}"],
}


def unpacker_of(path: Path) -> Callable[[Path, Path], None] | None:
    """Return what unpacks an archive to a path; None if it need not be unpacked."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(b"\x1f\x8b"):
        return _gunzip
    return _unrar if magic == b"Rar!" else None


def _gunzip(path: Path, target: Path) -> None:
    packed = path.stat().st_size
    require_space(target.parent, packed)
    written = 0
    try:
        with gzip.open(path) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                require_no_bomb(path, written, packed)
                file.write(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run 'dvc repro'") from None


def _unrar(path: Path, target: Path) -> None:
    import rarfile

    tool = next((name for name in _RAR_TOOLS if shutil.which(name)), None)
    if tool is None:
        raise UserError(
            f"{path}: unpacking rar needs one of {', '.join(_RAR_TOOLS)}; install one, or pack the"
            " files as zip and name it with sources.<name>.location"
        )
    try:
        with rarfile.RarFile(path) as archive:
            entries = archive.infolist()
    except rarfile.Error as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run 'dvc repro'") from None
    for entry in entries:
        require_inside(path, entry.filename)
        if entry.is_symlink():
            raise UserError(f"{path}: {entry.filename!r} is a link; expected plain files")
    declared = {entry.filename: entry.file_size for entry in entries if entry.is_file()}
    require_no_bomb(path, sum(declared.values()), path.stat().st_size)
    require_space(target.parent, sum(declared.values()))
    target.mkdir()
    command = [part.format(archive=path.resolve(), folder=target.resolve())
               for part in _RAR_TOOLS[tool]]  # fmt: skip
    done = subprocess.run([tool, *command], capture_output=True, text=True)
    found = {
        file.relative_to(target).as_posix(): file.lstat().st_size
        for file in target.rglob("*")
        if not file.is_dir() or file.is_symlink()
    }
    if done.returncode or found != declared:
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        raise UserError(
            f"{path}: {tool} unpacked {len(found)} of {len(declared)} files as declared"
            f" (status {done.returncode}: {said}); delete it and run 'dvc repro'"
        )
