"""What an archive must not do, whatever its kind."""

import re
from pathlib import Path, PurePosixPath

from pipeline.runtime.errors import UserError

LARGEST_RATIO = 200
"""Unpacked to packed bytes: photographs have about 1, lists of names 10, bombs 1000 and more."""
SMALL_BYTES = 100 * 2**20
"""Whatever unpacks to less is no bomb."""


def require_inside(path: Path, name: str, link: str | None = None) -> None:
    """Refuse a name, or the target of a link of that name, that leaves the archive."""
    written = (link if link is not None else name).replace("\\", "/")
    absolute = written.startswith("/") or re.match(r"[A-Za-z]:", written)
    parents = PurePosixPath(name).parent.parts if link is not None else ()
    depth = 0
    for part in (*parents, *PurePosixPath(written).parts):
        depth += -1 if part == ".." else 1
        if depth < 0 or absolute:
            what = f"links to {link!r}" if link is not None else "lies"
            raise UserError(
                f"{path}: {name!r} {what} outside of the archive; do not trust this file:"
                " delete it and fetch it anew"
            )


def require_no_bomb(path: Path, unpacked: int, packed: int) -> None:
    """Refuse an archive of ``packed`` bytes that unpacks to more than photographs do."""
    if unpacked > max(SMALL_BYTES, LARGEST_RATIO * packed):
        raise UserError(
            f"{path}: {packed:,} bytes unpack to {unpacked:,} or more; photographs do not:"
            " delete it and fetch it anew"
        )
