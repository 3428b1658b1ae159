"""A zip cut into parts, ``name.zip.00``, ``name.zip.01`` and so on, read as one file."""

import io
import os
import re
from pathlib import Path

from pipeline.runtime.errors import UserError

PART = re.compile(r"(?P<whole>.+\.zip)\.(?P<number>\d{2,3})")
_LONGEST_END = 22 + 2**16
"""Of a zip: the end of its table of contents with the longest comment."""


def parts_of(path: Path) -> list[Path]:
    """Return all parts of the cut zip that a path is a part of; else the path alone.

    Raises:
        UserError: a part between two others is missing.
    """
    part = PART.fullmatch(path.name)
    if part is None:
        return [path]
    found = sorted(path.parent.glob(f"{part['whole']}.{'[0-9]' * len(part['number'])}"))
    numbers = [int(other.name.rpartition(".")[2]) for other in found]
    missing = sorted(set(range(min(numbers[0], 1), numbers[-1] + 1)) - set(numbers))
    if missing:
        raise UserError(f"{path.parent}: part {missing[0]:02d} of {part['whole']} is missing")
    return found


def require_all_parts(path: Path) -> None:
    """Raise UserError where a cut zip lacks its first or last part; others are no cut zips.

    The first one begins a zip, the last one ends with its table of contents.
    """
    part = PART.fullmatch(path.name)
    if part is None:
        return
    numbers = [other.name.rpartition(".")[2] for other in parts_of(path)]
    whole = Parts(path)
    begins = whole.read(2)
    whole.seek(-min(_LONGEST_END, whole.seek(0, io.SEEK_END)), io.SEEK_END)
    ends = whole.read()
    lacking = [
        place for place, there in (("first", begins == b"PK"), ("last", b"PK\5\6" in (ends or b"")))
        if not there
    ]  # fmt: skip
    if lacking:
        raise UserError(
            f"{path.parent}: found the parts {numbers[0]} to {numbers[-1]} of {part['whole']}, of"
            f" which the {' and the '.join(lacking)} is missing or damaged; put it beside them"
        )


class Parts(io.RawIOBase):
    """The parts of a cut file as one."""

    def __init__(self, first: Path) -> None:
        """Open all parts of the file that ``first`` is a part of."""
        self._files = [part.open("rb") for part in parts_of(first)]
        sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        self._ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        self._place = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be read from any place."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place; return it."""
        self._place = offset + (0, self._place, self._ends[-1])[whence]
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into a buffer, at most to the end of a part; return the number of bytes."""
        index = next((i for i, end in enumerate(self._ends) if self._place < end), None)
        if index is None:
            return 0
        size = min(len(buffer), self._ends[index] - self._place)
        start = self._ends[index - 1] if index else 0
        content = os.pread(self._files[index].fileno(), size, self._place - start)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)
