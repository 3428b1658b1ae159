"""EXIF data and pixel density of a photograph: kept as they were, but for what turning changes.

Pillow reads directories of tags but forgets the types of their values, and tifffile writes none
below a TIFF's first. So directories are carried here with their types, and packed anew.
"""

import io
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image as PillowImage
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.images.files import EXIF_ORIENTATION

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
JFIF_INCHES = {1: 1.0, 2: CENTIMETRES_AN_INCH}
"""The same by JFIF's unit; 0 stands for none (ITU-T T.871, 10.1)."""
DENSITIES = (1, 65_535)
"""What a JPEG can hold; others are no density of a photograph and not kept."""
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
        return [tag for tag, directory in found.items() if directory]

    def inner(self, start: int, big: bool = False) -> tuple[bytes, dict[int, int]]:
        """Return the directories below the first, for a place in a file, and where each begins."""
        content, places = b"", {}
        photo = dict(self.photo)
        if self.interop:
            photo[INTEROP] = (LONG8 if big else LONG, start)
            content += _packed(self.interop, start, INTEROP, big)
        for tag, directory in ((PHOTO, photo), (PLACE, self.place)):
            if directory:
                places[tag] = start + len(content)
                content += _packed(directory, places[tag], tag, big)
        return content, places


def read_exif(image: PillowImage.Image, turned: bool) -> tuple[Exif | None, Density | None]:
    """Return EXIF data and pixel density of an image that has been decoded.

    Args:
        image: from a file that is still open.
        turned: whether turning it upright swaps width and height.

    Raises:
        Exception: as ``image_files.damage_as_user_error`` takes for damage.
    """
    found = image.getexif()
    file, head = getattr(found, "fp", None), getattr(found, "head", b"")
    if file is None:
        return None, _density(image, {}, turned)
    tiff = image.format == "TIFF"
    # Pillow has read a TIFF's first directory; of other formats it shows no types
    main = image.tag_v2 if tiff else _read(file, head, ImageFileDirectory_v2(head).next)  # type: ignore[attr-defined]
    photo, place = (_below(file, head, main, tag) for tag in (PHOTO, PLACE))
    exif = Exif(
        main=_upright(_values(main, KEPT_TAGS if tiff else tuple(main)), turned),
        photo=_upright(_values(photo, tuple(photo)), turned),
        interop=_values(interop := _below(file, head, photo, INTEROP), tuple(interop)),
        place=_values(place, tuple(place)),
    )
    exif.packed()  # values that cannot be written again are told here
    some = exif.main or exif.pointers()
    return exif if some else None, _density(image, main, turned)


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


def _density(image: PillowImage.Image, tags: Mapping[int, Any], turned: bool) -> Density | None:
    """Return pixels an inch as the format itself says, or else its EXIF data."""
    info = image.info
    if scale := JFIF_INCHES.get(info.get("jfif_unit", 0)):
        found = [value * scale for value in info["jfif_density"]]
    elif image.format in ("PNG", "BMP") and "dpi" in info:
        found = list(info["dpi"])
    else:
        scale = INCHES.get(tags.get(RESOLUTION_UNIT, 2), 0.0)
        try:
            found = [float(tags[tag]) * scale for tag in (X_RESOLUTION, Y_RESOLUTION)]
        except (KeyError, TypeError, ValueError, ArithmeticError):  # none, or no numbers
            return None
    lowest, highest = DENSITIES
    if not all(lowest <= value <= highest for value in found):
        return None
    x, y = reversed(found) if turned else found
    return x, y


def _below(
    file: IO[bytes], head: bytes, above: ImageFileDirectory_v2, tag: int
) -> ImageFileDirectory_v2:
    """Return the directory that a tag points to, an empty one if there is none."""
    place = above.get(tag)
    return _read(file, head, place if isinstance(place, int) else None, tag)


def _read(
    file: IO[bytes], head: bytes, place: int | None, group: int | None = None
) -> ImageFileDirectory_v2:
    directory = ImageFileDirectory_v2(head, group=group)
    if place is not None:
        file.seek(place)
        directory.load(file)
    return directory


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
