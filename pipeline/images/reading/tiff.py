"""Which TIFFs are read, by the tags of their own directory (TIFF 6.0, sections 8 and 18 to 22)."""

import re
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.images.reading.header import Header
from pipeline.runtime.errors import UserError

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
DESCRIPTION, SAMPLES, X_RESOLUTION, Y_RESOLUTION, PLANAR = 270, 277, 282, 283, 284
RESOLUTION_UNIT, SUB_DIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT = 296, 330, 338, 339
XMP, IPTC, PHOTOSHOP, ICC, DNG_VERSION, IMAGEJ = 700, 33723, 34377, 34675, 50706, 50838
COLOUR_MAP, DEPTH = 320, 32997
REDUCED, MASK = 1, 4
"""Bits of SUBFILE: a smaller version of another picture, and which of its pixels are shown."""

COMPRESSIONS = {
    1: "none", 2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 7: "JPEG", 8: "deflate",
    32773: "PackBits", 32946: "deflate",
}  # fmt: skip
"""What is read."""
OTHER_COMPRESSIONS = {
    6: "old JPEG", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG of a raw file",
    34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, YCBCR: 3}
"""Samples of a pixel without extra ones."""
OTHER_COLOURS = {
    4: "a transparency mask", 5: "CMYK colours", 8: "CIELAB colours", 9: "ICCLAB colours",
    10: "ITULAB colours", 32844: "LogL values", 32845: "LogLuv values",
}  # fmt: skip
FORMATS = {1: "integer", 2: "signed integer", 3: "float", 4: "untyped", 5: "complex integer",
           6: "complex float"}  # fmt: skip
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
"""Kinds of extra samples."""
UNITS = {1: "none", 2: "inch", 3: "centimetre"}


def tiff_layout(
    directories: list[ImageFileDirectory_v2], header: Header, name: str, page: int = 0
) -> None:
    """Fill in what a page says: a directory that is no smaller version or mask of another.

    Raises:
        UserError: a kind of TIFF that is not read; says which.
    """
    kinds = [_number(tags, SUBFILE, 0) & (REDUCED | MASK) for tags in directories]
    pictures = [at for at, kind in enumerate(kinds) if not kind] or [0]
    header.subimage = pictures[page]
    header.directory = tags = directories[header.subimage]
    header.pages = max(_number(tags, DEPTH, 1), _imagej_images(tags))
    header.separate = header.pages <= len(pictures)
    header.pages = max(header.pages, len(pictures))
    header.height, header.width = _number(tags, HEIGHT, 0), _number(tags, WIDTH, 0)
    colours = _colours(tags, name)
    _bits(tags, header, colours, name)
    _extra_samples(tags, header, colours, _samples(tags), name)
    header.xmp, header.iptc = as_bytes(tags.get(XMP)), as_bytes(tags.get(IPTC))
    header.photoshop, header.icc_profile = as_bytes(tags.get(PHOTOSHOP)), as_bytes(tags.get(ICC))
    if any(kind & MASK for kind in kinds):
        header.notes.append("transparency mask")
    if any(kind & REDUCED for kind in kinds):
        header.notes.append("smaller versions of the picture")
    if SUB_DIRECTORIES in tags:
        header.notes.append("SubIFDs")
    if IMAGEJ in tags:
        header.notes.append("ImageJ's own tags")
    try:
        x, y = float(tags[X_RESOLUTION]), float(tags[Y_RESOLUTION])
        header.density = (x, y, UNITS[tags.get(RESOLUTION_UNIT, 2)])
    except (KeyError, TypeError, ValueError, ArithmeticError):  # none, or no numbers
        header.density = None


def _imagej_images(tags: ImageFileDirectory_v2) -> int:
    """Return how many pictures ImageJ put behind one directory, as it does with large stacks."""
    text = tags.get(DESCRIPTION)
    found = re.search(r"^ImageJ=.*?^images=(\d{1,9})$", str(text), re.MULTILINE | re.DOTALL)
    return int(found[1]) if found else 1


def _colours(tags: ImageFileDirectory_v2, name: str) -> int:
    """Return how many samples are colours, after checking colours and compression."""
    photometric = _number(tags, PHOTOMETRIC, None)
    compression = _number(tags, COMPRESSION, 1)
    if photometric is None:
        raise ValueError("no kind of colours is named")
    if compression not in COMPRESSIONS:
        found = OTHER_COMPRESSIONS.get(compression, f"kind {compression}")
        raise UserError(f"{name}: TIFF compressed by {found}; save it with deflate or LZW")
    if photometric not in COLOURS:
        found = OTHER_COLOURS.get(photometric, f"colours of kind {photometric}")
        raise UserError(f"{name}: {found}; save it as RGB")
    if photometric == YCBCR and COMPRESSIONS[compression] != "JPEG":
        raise UserError(f"{name}: TIFF of YCbCr colours without JPEG; save it as RGB")
    return COLOURS[photometric]


def _bits(tags: ImageFileDirectory_v2, header: Header, colours: int, name: str) -> None:
    samples = _samples(tags)
    all_bits, all_formats = set(numbers(tags, BITS, 1)), set(numbers(tags, SAMPLE_FORMAT, 1))
    if len(all_bits) > 1 or len(all_formats) > 1:
        raise UserError(f"{name}: TIFF whose channels differ in kind; save it with 8 or 16 bits")
    (bits,), (kind,) = all_bits, all_formats
    photometric = _number(tags, PHOTOMETRIC, BLACK_IS_ZERO)
    narrow = bits in (1, 2, 4) and samples == 1
    allowed = narrow or bits == 8 or (bits == 16 and photometric != PALETTE)
    real = kind == 3 and bits == 32 and photometric in (BLACK_IS_ZERO, RGB)
    if not (real or (kind in (1, 4) and allowed)):
        found = f"{FORMATS.get(kind, 'unknown')} values of {bits} bits"
        raise UserError(f"{name}: TIFF of {found}; save it with 8 or 16 bits")
    header.bits = bits if bits > 8 else 8
    header.palette = photometric == PALETTE
    # its colours have 16 bits, but old programs wrote 8
    header.narrow_palette = header.palette and max(numbers(tags, COLOUR_MAP, 0)) < 256
    header.inverted = photometric == WHITE_IS_ZERO


def _extra_samples(
    tags: ImageFileDirectory_v2, header: Header, colours: int, samples: int, name: str
) -> None:
    if samples < colours:
        raise UserError(f"{name}: TIFF of {samples} channels where its colours need {colours}")
    extra = numbers(tags, EXTRA_SAMPLES, UNSPECIFIED) + [UNSPECIFIED] * samples
    kinds = extra[: samples - colours]
    if header.palette and kinds:
        raise UserError(f"{name}: TIFF of a palette with extra channels; save it as RGB")
    header.channels = 3 if header.palette else colours
    if kinds and kinds[0] in (ASSOCIATED, UNASSOCIATED):
        header.channels += 1
        header.associated = kinds[0] == ASSOCIATED
        kinds = kinds[1:]
    if kinds:
        header.notes.append(f"{len(kinds)} extra channel{'s' if len(kinds) > 1 else ''}")


def _samples(tags: ImageFileDirectory_v2) -> int:
    return int(_number(tags, SAMPLES, 1))


def _number(tags: ImageFileDirectory_v2, tag: int, default: Any) -> Any:
    """Return the first value of a tag.

    Raises:
        ValueError: it is no integer.
    """
    value = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    if value is not default and not isinstance(value, int):
        raise ValueError(f"tag {tag} is {value!r:.40}")
    return value


def numbers(tags: ImageFileDirectory_v2, tag: int, default: int) -> list[int]:
    """Return all values of a tag.

    Raises:
        ValueError: one is no integer.
    """
    value = tags.get(tag, (default,))
    values = list(value) if isinstance(value, tuple) else [value]
    if not all(isinstance(number, int) for number in values):
        raise ValueError(f"tag {tag} is {value!r:.40}")
    return values


def as_bytes(value: Any) -> bytes | None:
    """Return the value of a tag of bytes, whichever way it is read; None if it is another."""
    if isinstance(value, tuple) and all(isinstance(n, int) and 0 <= n < 256 for n in value):
        return bytes(value)
    return value if isinstance(value, bytes) and value else None
