"""EXIF data and pixel density of a photograph: kept as they were, but for what turning changes.

Pillow reads directories of tags but forgets the types of their values, and tifffile writes none
below a TIFF's first. So directories are carried here with their types, and packed anew.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.images.files import EXIF_ORIENTATION
from pipeline.images.reading.containers import directory, is_whole

Directory = dict[int, tuple[int, Any]]
"""Tag to the type of its value in the file, and the value."""
Density = tuple[float, float]
"""Pixels an inch, along the width and along the height."""

KEPT_TAGS = (0x010E, 0x010F, 0x0110, 0x0132, 0x013B, 0x8298)
"""Of a TIFF: description, make, model, date, artist, copyright; its others describe the file."""
PHOTO, PLACE, INTEROP = 0x8769, 0x8825, 0xA005
"""Tags that point to further directories: of the shot, of GPS, of interoperability."""
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
PAIRS = ((X_RESOLUTION, Y_RESOLUTION), (0xA002, 0xA003), (0xA20E, 0xA20F))
"""Densities, sizes and the sensor's densities along width and height (JEITA CP-3451)."""
CENTIMETRES_AN_INCH = 2.54
INCHES = {2: 1.0, 3: CENTIMETRES_AN_INCH}
"""What makes a density one an inch, by TIFF's unit; 1 stands for no unit (TIFF 6.0, section 8)."""
LONG, LONG8 = 4, 16
"""Types of a pointer, in a TIFF and in a BigTIFF."""


@dataclass(frozen=True)
class Exif:
    """Directories of EXIF data, without orientation: the pixels are upright."""

    main: Directory
    photo: Directory
    interop: Directory
    place: Directory

    def packed(self) -> bytes:
        """Return all of it as PNG and JPEG hold it: a small TIFF without a picture."""
        pointers = dict.fromkeys(self.pointers(), (LONG, 0))
        start = len(_head(False))
        inner, places = self.inner(start + len(_packed({**self.main, **pointers}, start)))
        pointers = {tag: (LONG, place) for tag, place in places.items()}
        return _head(False) + _packed({**self.main, **pointers}, start) + inner

    def pointers(self) -> list[int]:
        """Return the tags of the first directory that point to others."""
        found = {PHOTO: self.photo or self.interop, PLACE: self.place}
        return [tag for tag, below in found.items() if below]

    def inner(self, start: int, big: bool = False) -> tuple[bytes, dict[int, int]]:
        """Return the directories below the first, for a place in a file, and where each begins."""
        content, places = b"", {}
        photo = dict(self.photo)
        if self.interop:
            photo[INTEROP] = (LONG8 if big else LONG, start)
            content += _packed(self.interop, start, INTEROP, big)
        for tag, below in ((PHOTO, photo), (PLACE, self.place)):
            if below:
                places[tag] = start + len(content)
                content += _packed(below, places[tag], tag, big)
        return content, places


def read_exif(
    file: IO[bytes], main: ImageFileDirectory_v2 | None, tiff: bool, turned: bool
) -> tuple[Exif | None, Density | None, bool]:
    """Return EXIF data, the pixels an inch that it names, and whether all of it could be read.

    Args:
        file: a TIFF, or the small one without a picture that EXIF data is in other formats.
        main: its first directory, if it has been read.
        tiff: whether it has a picture; most of its tags describe the file then.
        turned: whether turning the picture upright swaps width and height.

    Raises:
        Exception: one of ``containers.DAMAGE``.
    """
    main = directory(file) if main is None else main
    photo, place = (_below(file, main, tag) for tag in (PHOTO, PLACE))
    whole = tiff or (is_whole(file, main) and all(
        is_whole(file, below, main[tag]) for tag, below in ((PHOTO, photo), (PLACE, place))
        if isinstance(main.get(tag), int)
    ))  # fmt: skip
    exif = Exif(
        main=_upright(_values(main, KEPT_TAGS if tiff else tuple(main)), turned),
        photo=_upright(_values(photo, tuple(photo)), turned),
        interop=_values(interop := _below(file, photo, INTEROP), tuple(interop)),
        place=_values(place, tuple(place)),
    )
    exif.packed()  # values that cannot be written again are found here
    some = exif.main or exif.pointers()
    return exif if some else None, None if tiff else _density(main, turned), whole


def add_directories(path: Path, exif: Exif, big: bool) -> None:
    """Write the directories below the first at the end of a little-endian TIFF.

    Its first directory has their tags (``exif.pointers``) already, with any value.
    """
    with path.open("r+b") as file:
        end = file.seek(0, io.SEEK_END)
        file.write(b"\0" * (end % 2))  # directories begin at words
        content, places = exif.inner(end + end % 2, big)
        file.write(content)
        for tag, place in places.items():
            file.seek(_place_of_value(file, tag, big))
            file.write(struct.pack("<Q" if big else "<I", place))


def _place_of_value(file: IO[bytes], tag: int, big: bool) -> int:
    """Return where the value of a tag of a TIFF's first directory lies (TIFF 6.0, section 2)."""
    pointer, number, entry, before = ("<Q", "<Q", 20, 12) if big else ("<I", "<H", 12, 8)

    def read(kind: str, place: int) -> int:
        file.seek(place)
        (found,) = struct.unpack(kind, file.read(struct.calcsize(kind)))
        return int(found)

    first = read(pointer, 8 if big else 4)
    entries = range(first + struct.calcsize(number), file.seek(0, io.SEEK_END), entry)
    places = (place for place in entries[: read(number, first)] if read("<H", place) == tag)
    return next(places) + before


def _density(tags: ImageFileDirectory_v2, turned: bool) -> Density | None:
    """Return pixels an inch as EXIF data names them."""
    scale = INCHES.get(tags.get(RESOLUTION_UNIT, 2), 0.0)
    try:
        x, y = (float(tags[tag]) * scale for tag in (X_RESOLUTION, Y_RESOLUTION))
    except (KeyError, TypeError, ValueError, ArithmeticError):  # none, or no numbers
        return None
    return (y, x) if turned else (x, y)


def _below(file: IO[bytes], above: ImageFileDirectory_v2, tag: int) -> ImageFileDirectory_v2:
    """Return the directory that a tag points to, an empty one if there is none."""
    place = above.get(tag)
    if isinstance(place, int):
        return directory(file, place, tag)
    return ImageFileDirectory_v2(group=tag)


def _values(directory: ImageFileDirectory_v2, tags: tuple[int, ...]) -> Directory:
    apart = (EXIF_ORIENTATION, PHOTO, PLACE, INTEROP)
    return {
        tag: (directory.tagtype[tag], directory[tag])
        for tag in tags
        if tag in directory and tag not in apart
    }


def _upright(directory: Directory, turned: bool) -> Directory:
    """Return the directory of the upright picture."""
    others = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])} if turned else {}
    return {others.get(tag, tag): value for tag, value in directory.items()}


def _head(big: bool) -> bytes:
    """Return what a little-endian TIFF begins with, its first directory right behind."""
    return b"II+\0" + struct.pack("<HHQ", 8, 0, 16) if big else b"II*\0" + struct.pack("<I", 8)


def _packed(directory: Directory, place: int, tag: int | None = None, big: bool = False) -> bytes:
    """Return a directory for a place in a file; ``tag`` is the one that points to it."""
    made = ImageFileDirectory_v2(_head(big), group=tag)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more values than a tag should have
        for name, (kind, value) in directory.items():
            made.tagtype[name] = kind
            # Pillow reads text as Latin-1, whatever it is, and would write ASCII alone
            made[name] = value.encode("latin-1") if isinstance(value, str) else value
        return made.tobytes(place)
