"""What is printed: to any terminal, and without what libraries in C print by themselves."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STANDARD_ERROR = 2


def bear_any_terminal() -> None:
    """Print '?' for letters that the terminal's encoding lacks, instead of failing at them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def library_messages_hidden() -> Iterator[None]:
    """Hide what libraries print past Python, such as libpng's of a damaged file.

    What Python prints goes where it went before: to a copy of the descriptor.
    """
    stream = sys.stderr
    try:
        ours = stream.fileno() == STANDARD_ERROR
    except (AttributeError, ValueError, io.UnsupportedOperation):
        ours = False
    if not ours:
        yield
        return
    stream.flush()
    copy = os.dup(STANDARD_ERROR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STANDARD_ERROR)
    os.close(nowhere)
    try:
        with os.fdopen(os.dup(copy), "w", encoding=stream.encoding, buffering=1) as sys.stderr:
            yield
    finally:
        sys.stderr = stream
        os.dup2(copy, STANDARD_ERROR)
        os.close(copy)
