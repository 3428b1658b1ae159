"""Which files below a folder are photographs: one rule for restoring and for training."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.images.files import ENDINGS, UNREAD_ENDINGS

SYSTEM_FOLDERS = (
    *("__macosx", "#recycle", "#snapshot", "~snapshot", "$recycle.bin", "recycler", "recycled"),
    *("trash", "network trash folder", "network recycle bin", "temporary items"),
    *("system volume information", "lost+found", "thumbnails", "thumbs"),
)
"""Not photographs of anyone's choice: archives of macOS, trash, thumbnails. In lower case."""
PREVIEWS = ".lrdata"
"""Ending of a folder of smaller versions of photographs, by Lightroom."""

Identity = tuple[int, int] | None
"""Device and number of a file or folder."""


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is hidden, a system's own, thumbnails or trash.

    ``@eaDir`` and other names with an @ are those of network storage (Synology, QNAP).
    """
    lower = name.lower()
    return lower.startswith((".", "@")) or lower in SYSTEM_FOLDERS or lower.endswith(PREVIEWS)


@dataclass
class Walk:
    """What lies below a folder, each list in the order of paths."""

    images: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)  # photographs that need further packages
    others: list[Path] = field(default_factory=list)  # files of other endings, hidden files
    left_out: list[Path] = field(default_factory=list)  # folders as in ``is_left_out``
    linked: list[Path] = field(default_factory=list)  # links to folders, if not followed
    refused: dict[Path, str] = field(default_factory=dict)  # and why


def walk(folder: Path, follow: bool, readable: tuple[str, ...] = ENDINGS,
         skip: Path | None = None) -> Walk:  # fmt: skip
    """Return what lies below a folder at any depth.

    Args:
        folder: taken whatever its own name.
        follow: enter folders that links lead to, each once.
        readable: endings of images, in lower case.
        skip: a folder that is not entered, such as that of the results.
    """
    found = Walk()
    for path in _files(folder, follow, {}, identity(skip) if skip else None, found):
        ending = path.suffix.lower()
        if path.is_symlink() and not path.exists():
            found.refused[path] = "a link that leads nowhere"
        elif path.name.startswith("."):  # such as macOS's ._photo.jpg, which is no image
            found.others.append(path)
        elif ending in readable:
            found.images.append(path)
        elif ending in UNREAD_ENDINGS:
            found.unread.append(path)
        else:
            found.others.append(path)
    return found


def left_out(folder: Path, below: Walk) -> list[str]:
    """Return what to say of photographs below a folder that are not taken for training."""
    lines = [
        f"left out {path}: a link to a folder, in which DVC sees no change; move the folder here"
        for path in below.linked
    ]
    lines += [f"left out {path}: {reason}" for path, reason in below.refused.items()]
    if below.left_out:
        names = ", ".join(sorted({path.name for path in below.left_out}))
        lines.append(
            f"{folder}: left out {len(below.left_out)} folders that are hidden, thumbnails or"
            f" trash ({names})"
        )
    unread = Counter(path.suffix[1:].upper() for path in below.unread)
    if unread:
        counts = ", ".join(f"{count} {kind}" for kind, count in unread.most_common())
        lines.append(
            f"{folder}: left out {counts}, which are not read; save them as PNG, TIFF or JPEG"
        )
    return lines


def is_unicode(name: str) -> bool:
    """Whether a name is UTF-8: other bytes become lone surrogates, which many libraries refuse."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def identity(path: Path) -> Identity:
    """Return what two names of one file or folder share, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _files(
    folder: Path, follow: bool, entered: dict[Identity, Path], skip: Identity, found: Walk
) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        found.refused[folder] = f"cannot be read ({error.strerror})"
        return
    entered[identity(folder)] = folder
    for path in entries:
        if not path.is_dir():
            yield path
            continue
        here = identity(path)
        if is_left_out(path.name):
            found.left_out.append(path)
        elif here == skip and skip is not None:
            continue
        elif not follow and path.is_symlink():
            found.linked.append(path)
        elif here in entered:
            found.refused[path] = f"leads to {os.fspath(entered[here])}, which is read already"
        else:
            yield from _files(path, follow, entered, skip, found)
