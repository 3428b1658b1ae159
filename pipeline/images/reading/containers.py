"""The parts of image files as their own headers list them, without decoding a pixel."""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import IO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.images.files import Kind

# what Pillow logs of damaged files is raised as well, and reported in one line
logging.getLogger("PIL").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module="PIL.TiffImagePlugin")  # of tags, which are checked here

EXIF = b"Exif\0\0"
"""What EXIF data begin with in a JPEG."""
PIXELS = (b"IDAT", b"fdAT")
"""Chunks of a PNG whose content is not read here."""
LARGEST_CHUNK = 2**26
"""Bytes of any other chunk; a colour profile has at most some megabytes."""
MOST_DIRECTORIES = 10_000
VERSIONS_OF_RAW = (b"RO", b"RS", b"U\0")
"""In the place of a TIFF's version, by Olympus and Panasonic."""
NO_LENGTH = (0x01, *range(0xD0, 0xD9))
"""Markers of a JPEG that stand alone (ITU-T T.81, table B.1)."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, struct.error),
    *(EOFError, LookupError, ArithmeticError, AttributeError),
)
"""What Pillow's readers were seen to raise on files with bytes changed at random, and its kin."""


def pillow_format(kind: Kind) -> str:
    """Return Pillow's name of a format, after teaching it HEIF if that is meant."""
    if kind == "heif":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return kind.upper()


def png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield name, content and whether the checksum is right, of each chunk (PNG, section 5.3).

    Of pixels, and of what is too large for anything else, the content is empty.
    """
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in PIXELS or length > LARGEST_CHUNK:
            file.seek(length + 4, io.SEEK_CUR)
            yield name, b"", True
            continue
        content, check = file.read(length), file.read(4)
        if len(content) < length:
            return
        yield name, content, check == struct.pack(">I", zlib.crc32(name + content))
        if name == b"IEND":
            return


def inflated(content: bytes, largest: int = 2**24) -> bytes | None:
    """Return what was compressed with zlib; None where it is damaged or larger."""
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(content, largest)
    except zlib.error:
        return None
    return found if unpacking.eof else None


def jpeg_segments(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment before the pixels (ITU-T T.81, B.1.1)."""
    file.seek(2)
    while (byte := file.read(1)) == b"\xff":
        while byte == b"\xff":
            byte = file.read(1)
        marker = byte[0] if byte else END_OF_IMAGE
        if marker == END_OF_IMAGE:
            return
        if marker in NO_LENGTH:
            continue
        head = file.read(2)
        length = struct.unpack(">H", head)[0] - 2 if len(head) == 2 else -1
        if length < 0:
            return
        yield marker, file.read(length)
        if marker == START_OF_SCAN:
            return


def jpeg_without_metadata(content: bytes) -> bytes:
    """Return a JPEG with nothing but what its pixels need: Adobe's and JFIF's segments stay."""
    file = io.BytesIO(content)
    kept = [content[:2]]
    for marker, part in jpeg_segments(file):
        if marker < 0xE0 or marker in (0xE0, 0xEE):
            kept.append(struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part)
    return b"".join([*kept, content[file.tell() :]])


def directory(
    file: IO[bytes], place: int | None = None, group: int | None = None
) -> ImageFileDirectory_v2:
    """Return one directory of tags of a TIFF, the first if no place is given.

    ``group`` is the tag that points to it, if one does.

    Raises:
        Exception: one of DAMAGE.
    """
    found = _opened(file, group)
    file.seek(found.next if place is None else place)
    found.load(file)
    return found


def _opened(file: IO[bytes], group: int | None = None) -> ImageFileDirectory_v2:
    """Return a directory of a TIFF that is still empty; the first one lies at its ``next``."""
    file.seek(0)
    head = file.read(16)
    # of a big-endian BigTIFF Pillow takes the wrong byte for the version
    version = head[2:4] if head[:2] == b"II" else head[3:1:-1]
    version = b"*\0" if version in VERSIONS_OF_RAW else version
    head = head[: 16 if version == b"+\0" else 8]
    return ImageFileDirectory_v2(b"II" + version + head[4:], prefix=head[:2], group=group)


def is_whole(file: IO[bytes], read: ImageFileDirectory_v2, place: int | None = None) -> bool:
    """Whether every tag of a directory of EXIF data was read; Pillow skips damaged ones."""
    file.seek(0)
    order = ">" if file.read(2) == b"MM" else "<"
    file.seek(4)
    file.seek(struct.unpack(f"{order}I", file.read(4))[0] if place is None else place)
    count = file.read(2)
    if len(count) < 2:
        return False
    entries = [file.read(12) for _ in range(struct.unpack(f"{order}H", count)[0])]
    # without values there is nothing to lose
    named = {entry[:2] for entry in entries if entry[4:8] != bytes(4)}
    return all(len(entry) == 12 for entry in entries) and len(named) == len(read)


def directories(file: IO[bytes]) -> list[ImageFileDirectory_v2]:
    """Return the directories of a TIFF in order; a chain that leads back ends there."""
    found = [directory(file)]
    seen = {_opened(file).next}
    while (place := found[-1].next) and place not in seen and len(found) < MOST_DIRECTORIES:
        seen.add(place)
        following = directory(file, place)
        if not len(following):
            break
        found.append(following)
    return found


def first_word(content: bytes) -> str:
    """Return the name that a segment or chunk begins with, as far as it can be printed."""
    text = content[:20].partition(b"\0")[0].decode("ascii", "replace")
    return "".join(filter(str.isprintable, text)) or "without a name"
