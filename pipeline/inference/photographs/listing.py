"""Which photographs a user means, and where each restored one goes."""

import glob
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.images.files import ENDINGS, UNREAD_ENDINGS, readable_endings, unread
from pipeline.images.reading.folders import identity, walk
from pipeline.inference.photographs.writing import Format

FORMATS: dict[str, Format] = {
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
}
"""From a file's ending; every other becomes PNG, WebP too unless it is asked for."""
LONGEST_NAME = 255
"""Bytes of a file name, on all usual file systems."""
ENDING_OF: dict[Format, str] = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg", "webp": ".webp"}


@dataclass(frozen=True)
class FoundPhotograph:
    """A photograph, and its path below the folder that the user named."""

    path: Path
    below: Path


@dataclass(frozen=True)
class Order:
    """A photograph to be restored into a file."""

    source: Path
    target: Path
    kind: Format


@dataclass
class Listing:
    """What was found: photographs, what was refused and why, files that are no images."""

    found: list[FoundPhotograph] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    others: set[Path] = field(default_factory=set)
    left_out: set[Path] = field(default_factory=set)  # folders of the system, not entered
    readable: tuple[str, ...] = ENDINGS

    @property
    def unread(self) -> set[str]:
        """Endings of photographs that need further packages."""
        return set(UNREAD_ENDINGS) - set(self.readable)


def list_photographs(inputs: list[str], out: Path, readable: tuple[str, ...] = ENDINGS) -> Listing:
    """Return the photographs that files, folders and patterns name, sorted within each.

    A file is taken whatever its ending, but for those of photographs that are not read; of a folder
    the files whose ending is an image's, at any depth. Links are followed, but no folder is entered
    twice. Nothing in ``out`` is taken, unless it is what the user names.
    """
    listing = Listing(readable=readable_endings(raw=True))
    for text in inputs:
        before = len(listing.found), len(listing.refused)
        if os.path.lexists(text):
            path = Path(text)
            _add(path, Path() if path.is_dir() else Path(path.name), out, listing)
        elif glob.has_magic(text):
            fixed = _fixed_part(text)
            for match in map(Path, sorted(glob.glob(text, recursive=True))):  # noqa: PTH207
                if _is_within(fixed, out) or not _is_within(match, out):
                    _add(match, match.relative_to(fixed), out, listing)
        else:
            listing.refused.append(f"{shown(text)}: no such file or folder")
        if before == (len(listing.found), len(listing.refused)):
            endings = ", ".join(listing.readable)
            listing.refused.append(f"{shown(text)}: no image found; expected {endings}")
    listing.refused = list(dict.fromkeys(listing.refused))
    return listing


@dataclass
class Plan:
    """What is to be restored, what is refused in one line each, what is restored already."""

    accepted: list[Order] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    skipped: int = 0


@dataclass(frozen=True)
class Naming:
    """Of results: format, suffix of the stem, and what becomes of results that are there."""

    out: Path
    kind: Format | None = None  # None: the photograph's own
    suffix: str = ""
    overwrite: bool = False
    skip_existing: bool = False


def plan(listing: Listing, naming: Naming) -> Plan:
    """Return what is to be restored.

    Refused: photographs whose results would have one name, a result that is there already (unless
    it may be overwritten or skipped), a folder or a photograph in the place of a result.
    """
    planned = [_order(found, naming) for found in listing.found]
    # one photograph may be named twice
    planned = list({(order.target, identity(order.source)): order for order in planned}.values())
    sources = {identity(order.source) for order in planned}
    by_target: dict[Path, list[Order]] = defaultdict(list)
    for order in planned:
        by_target[order.target].append(order)
    made = Plan()
    for target, rivals in by_target.items():
        source = shown(rivals[0].source)
        there = os.path.lexists(target)
        if len(rivals) > 1:
            names = ", ".join(shown(order.source) for order in rivals)
            made.refused += [
                f"{shown(order.source)}: same result {shown(target)} as of others ({names});"
                " restore them into folders of their own"
                for order in rivals
            ]
        elif (size := len(os.fsencode(target.name))) > LONGEST_NAME:
            made.refused.append(
                f"{source}: the name of its result would have {size} bytes, expected at most"
                f" {LONGEST_NAME}; rename it, or give a shorter --suffix"
            )
        elif there and identity(target) in sources:
            made.refused.append(f"{source}: {shown(target)} is itself a photograph to restore")
        elif target.is_dir():
            made.refused.append(f"{source}: {shown(target)} is a folder; expected room for a file")
        elif there and naming.skip_existing:
            made.skipped += 1
        elif there and not naming.overwrite:
            made.refused.append(
                f"{source}: {shown(target)} is there already; --overwrite replaces it,"
                " --skip-existing leaves it"
            )
        else:
            made.accepted.append(rivals[0])
    return made


def shown(path: Path | str) -> str:
    """Return a path as one line of printable characters: a name may hold any others."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _add(path: Path, below: Path, out: Path, listing: Listing) -> None:
    if not path.is_dir():
        if path.is_symlink() and not path.exists():
            listing.refused.append(f"{shown(path)}: a link that leads nowhere")
        elif path.suffix.lower() in listing.unread:
            listing.refused.append(_unread(path))
        else:
            listing.found.append(FoundPhotograph(path, below))
        return
    inside = walk(path, follow=True, readable=listing.readable, skip=out)
    listing.found += [
        FoundPhotograph(file, below / file.relative_to(path)) for file in inside.images
    ]
    listing.refused += [_unread(file) for file in inside.unread]
    listing.refused += [f"{shown(file)}: {shown(why)}" for file, why in inside.refused.items()]
    listing.others.update(inside.others)
    listing.left_out.update(inside.left_out)


def _unread(file: Path) -> str:
    kind = file.suffix[1:].upper()
    return f"{shown(file)}: {kind} is not read; {unread(kind)}"


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder, or lies in it at any depth."""
    place = path if path.is_dir() else path.parent
    return place.resolve().is_relative_to(folder.resolve())


def _fixed_part(pattern: str) -> Path:
    """Return the folders of a pattern before the first special character."""
    parts = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _order(found: FoundPhotograph, naming: Naming) -> Order:
    ending = found.below.suffix
    of_ending = FORMATS.get(ending.lower())
    kind = naming.kind or of_ending or "png"
    known = ending.lower() in (*ENDINGS, *UNREAD_ENDINGS)
    stem = found.below.stem if known else found.below.name
    name = stem + naming.suffix + (ending if of_ending == kind else ENDING_OF[kind])
    return Order(found.path, naming.out / found.below.with_name(name), kind)
