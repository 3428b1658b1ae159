"""Where archives may lie outside of DVC's outputs, and where files that are not ours are kept."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from pipeline.config.sources import Archive
from pipeline.runtime.errors import UserError
from pipeline.sources.archives.parts import PART
from pipeline.sources.archives.reading import LOOSE
from pipeline.sources.fetch.checksums import Checksums

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".rar")


def downloads() -> Path:
    """Return the folder of what is half fetched, put there by hand, or moved out of the way."""
    return Path(os.environ.get("PIPELINE_DOWNLOADS") or "downloads").absolute()


def lying(source: str, archive: Archive) -> Iterator[Path]:
    """Yield the files under the archive's own name, and those under a name that addresses give it.

    ``train.zip`` may be of any data set: a name of an address counts in the folder of the source,
    or where a published size is that of the file.

    Raises:
        UserError: PIPELINE_ARCHIVES names no folder.
    """
    shared = os.environ.get("PIPELINE_ARCHIVES")
    if shared and not Path(shared).is_dir():
        raise UserError(f"PIPELINE_ARCHIVES: found {shared}, expected a folder of archives")
    roots = ([Path(shared).absolute()] if shared else []) + [downloads()]
    sizes = {version.size_bytes for version in archive.versions} - {None}
    others = names_of(archive)[1:]
    for root in roots:
        for path in (root / source / archive.file, root / archive.file):
            if path.is_file():
                yield path
        for name in others:
            for path, unsure in ((root / source / name, not sizes), (root / name, False)):
                if path.is_file() and (unsure or path.stat().st_size in sizes):
                    yield path


def names_of(archive: Archive) -> list[str]:
    """Return the names that a file of an archive has: here first, then at its addresses."""
    urls = (url for version in archive.versions for url in version.urls)
    words = (PurePosixPath(unquote(urlsplit(url).path)).name for url in urls)
    named = (word for word in words if is_archive(word) or word.lower().endswith(LOOSE))
    return list(dict.fromkeys([archive.file, *named]))


def is_archive(name: str) -> bool:
    """Return whether a file of this name holds others."""
    return name.lower().endswith(ARCHIVE_ENDINGS) or PART.fullmatch(name) is not None


def clear(path: Path, checksums: Checksums, ending: str = "") -> Path | None:
    """Remove a file that was fetched or copied here; keep any other one in the downloads folder.

    Args:
        path: a file in the folder of a source.
        checksums: of what was fetched and copied here.
        ending: added to its name where that would be looked for in the downloads folder.

    Returns where it is kept; None where it was ours.
    """
    half_copied = path.name.startswith(".") and path.name.endswith(".partial")
    if half_copied or checksums.is_ours(path):
        path.unlink()
        return None
    folder = downloads() / path.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / f"{path.name}{ending}", 1
    while target.exists() or target.is_symlink():
        number += 1
        target = folder / f"{path.name}{ending}.{number}"
    if path.is_symlink():
        target.symlink_to(path.resolve())  # a relative one would lead elsewhere from there
        path.unlink()
    else:
        shutil.move(path, target)
    return target
