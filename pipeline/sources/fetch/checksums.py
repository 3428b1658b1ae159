"""The list of checksums beside the archives: what a file was at first, it must be later on."""

import threading
from pathlib import Path

from pipeline.files import sha256_of, write_text
from pipeline.sources.archives import CHECKSUMS


class Checksums:
    """SHA-256 of every archive by file name, on the disk as soon as it is known.

    Not only at the end: another archive may fail, and what this one was at first would be lost.
    Any thread may note one.
    """

    def __init__(self, folder: Path) -> None:
        """Read what an earlier run has noted."""
        self._path = folder / CHECKSUMS
        self._lock = threading.Lock()
        text = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        pairs = (line.split("  ", 1) for line in text.splitlines() if "  " in line)
        self._noted = {name: checksum for checksum, name in pairs}

    def get(self, name: str) -> str | None:
        """Return what a file was at first; None for a new one."""
        return self._noted.get(name)

    def is_ours(self, path: Path) -> bool:
        """Return whether a file is the one that was noted, not the user's under its name."""
        noted = self.get(path.name)
        return noted is not None and path.is_file() and sha256_of(path) == noted

    def note(self, name: str, checksum: str) -> None:
        """Write down what a file is."""
        with self._lock:
            self._noted[name] = checksum
            self._write()

    def keep(self, names: set[str]) -> None:
        """Forget all other files."""
        with self._lock:
            self._noted = {name: self._noted[name] for name in names if name in self._noted}
            self._write()

    def _write(self) -> None:
        # as sha256sum writes and checks it
        lines = (f"{checksum}  {name}\n" for name, checksum in sorted(self._noted.items()))
        write_text(self._path, "".join(lines))
