"""Checksums of archives: of those that lie here, and of what each was when it was first fetched.

The first ones are kept in git, ``data/checksums/<source>.txt``: also another machine must get the
same archive. The others lie beside the archives and tell ours from the user's own files.
"""

import threading
from pathlib import Path

from pipeline.runtime.files import sha256_of, write_text
from pipeline.sources.archives.reading import CHECKSUMS


class Checksums:
    """SHA-256 by file name, on the disk as soon as it is known.

    Not only at the end: another archive may fail, and what this one was at first would be lost.
    Any thread may note one.
    """

    def __init__(self, folder: Path) -> None:
        """Read what earlier runs have noted of the archives in ``data/raw/<source>``."""
        self.record = folder.parent.parent / "checksums" / f"{folder.name}.txt"
        self._path = folder / CHECKSUMS
        self._here, self._first = _read(self._path), _read(self.record)
        self.new: list[str] = []
        self._lock = threading.Lock()

    def first(self, name: str) -> str | None:
        """Return what a file was when it was first fetched; None for a new one."""
        return self._first.get(name)

    def is_here(self, name: str) -> bool:
        """Return whether a file was fetched or copied here."""
        return name in self._here

    def is_ours(self, path: Path) -> bool:
        """Return whether a file is the one that was noted, not the user's under its name."""
        noted = self._here.get(path.name)
        return noted is not None and path.is_file() and sha256_of(path) == noted

    def note_fetched(self, name: str, checksum: str) -> None:
        """Write down what an archive is, for good if it is new."""
        with self._lock:
            if name not in self._first:
                self._first[name] = checksum
                self.new.append(name)
                _write(self.record, self._first)
        self.note_copied(name, checksum)

    def note_copied(self, name: str, checksum: str) -> None:
        """Write down what a copy of the user's own file is."""
        with self._lock:
            self._here[name] = checksum
            _write(self._path, self._here)

    def keep(self, names: set[str]) -> None:
        """Forget all other files that were here."""
        with self._lock:
            self._here = {name: self._here[name] for name in names if name in self._here}
            _write(self._path, self._here)


def _read(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    pairs = (line.split("  ", 1) for line in text.splitlines() if "  " in line)
    return {name: checksum for checksum, name in pairs}


def _write(path: Path, checksums: dict[str, str]) -> None:
    # as sha256sum writes and checks it
    lines = (f"{checksum}  {name}\n" for name, checksum in sorted(checksums.items()))
    write_text(path, "".join(lines))
