"""Files that are either whole or not there."""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.runtime.errors import UserError


@contextlib.contextmanager
def replacing(path: Path, exclusive: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``.

    A kill, an exception or a full disk leaves what was at ``path`` as it was. The temporary name is
    short and no other process has it, so that a name may have all its 255 bytes and two processes
    never write into one file.

    Args:
        path: the file.
        exclusive: refuse to replace a file that is there by then, also where names that differ in
            case are one.

    Raises:
        FileExistsError: ``exclusive``, and there is a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if exclusive:
            _put_where_nothing_is(partial, path)
        else:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _put_where_nothing_is(partial: Path, path: Path) -> None:
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, such as exFAT: take the name, then fill it
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise UserError unless the disk of ``folder`` has room for ``needed_bytes``."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise UserError(
            f"{folder}: {free / 2**20:,.0f} MiB free, {needed_bytes / 2**20:,.0f} MiB needed;"
            " free some disk space and run the same command again"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
