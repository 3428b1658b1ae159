"""Errors that a user can mend, as opposed to faults of this program."""

import errno
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130
"""What shells report of a process that SIGINT ended: 128 + 2."""
UNREAD_STATUS = 141
"""The same of SIGPIPE: 128 + 13."""

NO_MEMORY = ("not enough memory", "cannot allocate memory", "can't allocate memory",
             "failed to map segment", "out of memory")  # fmt: skip
"""How torch, CUDA and the dynamic loader say it, in small letters."""
NO_ACCOUNT = ("determine the home directory", "uid not found", "no username set")
"""How platformdirs and Python say that this user's number stands for nobody."""
OUR_OWN = ("pipeline", "stages")


class UserError(Exception):
    """Bad input: says in one line what was expected, what was found, what to do."""


@contextmanager
def user_errors_end() -> Iterator[None]:
    """End the process at a user's mistake, or where the machine fails: one line, and status 2."""
    try:
        yield
    except Exception as error:
        line = in_one_line(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)


def in_one_line(error: BaseException) -> str | None:
    """Return what to tell a user of an error that the machine caused; None for a fault of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; finished results are whole: run the same command again"
    if isinstance(error, MemoryError) or any(words in text.lower() for words in NO_MEMORY):
        return (
            f"not enough memory ({text[:200] or 'MemoryError'}); end other programs, raise a limit"
            " (ulimit -v), or lower train.batch or evaluate.batch"
        )
    if any(words in text.lower() for words in NO_ACCOUNT):
        return (
            f"this account has no name or no home ({text}): export USER=$(id -u) HOME=/nonexistent,"
            " or 'make setup', which tells Python"
        )
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(OUR_OWN):
        return (
            f"{error.name}: not installed for {sys.executable}; for the project's Python: source"
            " .venv/bin/activate ('make setup' makes it)"
        )
    if isinstance(error, sqlite3.Error):
        return (
            f"DVC's database ({text}): free disk space, or let it lie where it can be written to:"
            " export DVC_SITE_CACHE_DIR=FOLDER"
        )
    if not isinstance(error, OSError):
        return None
    # h5py wraps the reason into its text and leaves errno unset
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or f"errno = {errno.ENOSPC}" in text:
        return f"disk full while writing ({text}); free space and run the command again"
    if error.filename is None:
        return None
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{text}: read-only or another user's; work in a folder of your own"
    if error.errno in (errno.EISDIR, errno.ENOTDIR):
        return f"{text}: move away what is there"
    return text


def print_in_one_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error that nobody caught: a line where the machine caused it, else the traceback."""
    line = in_one_line(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {line}", file=sys.stderr)
