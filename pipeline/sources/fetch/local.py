"""The user's own copies in place of what would be fetched: held against what is known of it."""

import shutil
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.sources import FetchedSource, Version
from pipeline.images.files import ENDINGS
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing, require_space
from pipeline.sources.archives.parts import parts_of, require_all_parts
from pipeline.sources.archives.reading import LOOSE, write_archive
from pipeline.sources.fetch.check import Wrong, require_right
from pipeline.sources.fetch.checksums import Checksums
from pipeline.sources.fetch.places import clear, is_archive, names_of

PACKED_FOLDER = "folder.zip"


def take_file(local: Path, settings: FetchedSource, folder: Path, checksums: Checksums) -> set[str]:
    """Take over an archive, all of its parts if it is cut, in place of the first one.

    Returns the names of its files.

    Raises:
        UserError: it is none of the versions of the first archive, a part is missing, or no
            archive at all.
    """
    parts = parts_of(local)
    require_all_parts(local)
    key, first = next(iter(settings.archives.items()))
    versions = first.versions if parts == [local] else ()
    for part in parts:
        checksum = _held(part, versions, key, folder.name)
        _make_way(folder / part.name, checksums)
        copy(part, folder / part.name)
        checksums.note_copied(part.name, checksum)
    return {part.name for part in parts}


def take_folder(
    local: Path, settings: FetchedSource, folder: Path, checksums: Checksums
) -> set[str]:
    """Take over a folder: its archives as they are, everything else packed into one.

    Packed names begin with that of the folder: it may be one that a layout knows (``train``).

    Returns the names of all files.

    Raises:
        UserError: an archive has the name of a published one and is another, or two have one
            name; there is neither an archive nor an image, or the images of an archive are there
            unpacked too.
    """
    if local.name in ("", ".."):
        local = local.resolve()
    archives: dict[str, Path] = {}
    loose: dict[str, Path] = {}
    for path in sorted(local.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        if is_archive(path.name):
            if path.name in archives:
                raise UserError(
                    f"{local}: found two archives named {path.name}; keep one of the two"
                )
            archives[path.name] = path
        elif path.name.lower().endswith((*ENDINGS, *LOOSE)):
            loose[path.relative_to(local.parent).as_posix()] = path
    if not archives and not loose:
        raise UserError(f"{local}: found neither an archive nor an image")
    found = {name: _held_by_name(path, settings, folder.name) for name, path in archives.items()}
    for path in archives.values():
        _require_not_unpacked(path, loose)
    for path in loose.values():
        if (known := _known(path, settings)) is not None:
            _held(path, *known, folder.name)
    for name in (*archives, *([PACKED_FOLDER] if loose else [])):
        _make_way(folder / name, checksums)
    for name, path in archives.items():
        require_all_parts(path)
        copy(path, folder / name)
        checksums.note_copied(name, found[name])
    if loose:
        require_space(folder, sum(path.stat().st_size for path in loose.values()))
        entries = [(name, path.read_bytes) for name, path in loose.items()]
        write_archive(folder / PACKED_FOLDER, entries)
        found[PACKED_FOLDER] = require_right(folder / PACKED_FOLDER, [], None)
        checksums.note_copied(PACKED_FOLDER, found[PACKED_FOLDER])
    return set(found)


def _require_not_unpacked(path: Path, loose: dict[str, Path]) -> None:
    """Refuse an archive beside its own content, by its first image: each would be there twice."""
    image = _first_image(path)
    if image is None:
        return
    for name, file in loose.items():
        if f"/{name}".endswith(f"/{image}") or f"/{image}".endswith(f"/{name}"):
            raise UserError(
                f"{path}: its {image} is there unpacked too, as {file}; keep one of the two, the"
                " archive or what was unpacked of it"
            )


def _first_image(path: Path) -> str | None:
    """Return the name of one image of a zip or tar; None where it is not known before unpacking."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            return next((name.removeprefix("./") for e in tar if _is_image(name := e.name)), None)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return next(filter(_is_image, archive.namelist()), None)
    return None


def _is_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and "__MACOSX" not in name


def _make_way(target: Path, checksums: Checksums) -> None:
    """Keep a file of the user's that lies where a copy is to be; ours is replaced at the end."""
    if (target.exists() or target.is_symlink()) and not checksums.is_ours(target):
        kept = clear(target, checksums, ".replaced")
        print(f"{target}: not copied there before: now {kept}", file=sys.stderr)


def copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    require_space(target.parent, source.stat().st_size)
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def _held_by_name(path: Path, settings: FetchedSource, source: str) -> str:
    known = _known(path, settings)
    if known is not None:
        return _held(path, *known, source)
    print(f"{source}: {path}: no archive of this name is known; taken as it is", file=sys.stderr)
    return require_right(path, [], None)


def _known(path: Path, settings: FetchedSource) -> tuple[Sequence[Version], str] | None:
    """Return what is known of a file of this name, here or at an address, and its key."""
    for key, archive in settings.archives.items():
        if path.name in names_of(archive):
            return archive.versions, key
    return None


def _held(path: Path, versions: Sequence[Version], key: str, source: str) -> str:
    try:
        return require_right(path, versions, None)
    except Wrong as wrong:
        hint = f"; if this copy is what you want, set sources.{source}.archives.{key}.versions=[]"
        raise UserError(f"{wrong}{hint if versions else ''}") from None
