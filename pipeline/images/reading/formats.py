"""What an image file says of itself: the one place that decides what is read.

Each format has a list of what is supported. All else is refused with what was found. An error in
what only describes the picture (EXIF, profile, text) is noted, never taken for one of the picture.
"""

import io
import re
import struct
from collections.abc import Iterable
from typing import IO, Any

from PIL import Image, UnidentifiedImageError

from pipeline.images.files import (
    CAMERA_RAW,
    EXIF_ORIENTATION,
    FIRST_BYTES,
    damaged,
    kind_of,
    readable,
)
from pipeline.images.reading.containers import (
    DAMAGE,
    EXIF,
    directories,
    directory,
    inflated,
    jpeg_segments,
    pillow_format,
    png_chunks,
)
from pipeline.images.reading.header import Header
from pipeline.images.reading.raw import is_raw, read_raw
from pipeline.images.reading.tiff import tiff_layout
from pipeline.runtime.errors import UserError

XMP, MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/ext"
ICC, PHOTOSHOP, MPF = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0"
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
GAIN_MAP = "gain map"
GAIN_MAP_IN_XMP = (b"hdrgm", b"HDRGainMap", b"hdr-gain-map")
XMP_OF_LOST = "XMP (it describes what is not kept)"
PNG_XMP = b"XML:com.adobe.xmp\0"
PNG_IPTC = b"Raw profile type iptc\0", b"Raw profile type 8bim\0"
"""Keywords of a text that is IPTC, or Photoshop's resources with IPTC among them."""
RAW_PROFILE = re.compile(rb"\n[^\n]*\n *(\d{1,9}) *\n([0-9a-fA-F\s]*)")
KEPT_CHUNKS = (
    *(b"cICP", b"mDCV", b"cLLI", b"gAMA", b"cHRM", b"sRGB", b"sBIT"),
    *(b"tEXt", b"zTXt", b"iTXt", b"tIME", b"sPLT", b"iCCN"),
    *(b"sCAL", b"pCAL", b"oFFs", b"sTER"),
)
"""Chunks that stay true of a restored picture (PNG, section 11.3, and its extensions)."""
ENCODING_CHUNKS = (b"tRNS", b"hIST", b"iDOT", b"fcTL", b"fdAT", b"acTL")
"""Those that say how the pixels were encoded, and go without a line."""
CHUNK_BYTES = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1,
               b"tIME": 7}  # fmt: skip
NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
ORIENTATION_IN_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])")
WITHOUT_NOTE = (0xEC, 0xED, 0xEE)
"""Segments that say how a JPEG was encoded (Ducky, Adobe), and Photoshop's, whose IPTC is kept."""
FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
"""Start of a frame that is read: baseline, extended, progressive (ITU-T T.81, table B.1)."""
OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


def read_header(file: IO[bytes], name: str, page: int = 0) -> Header:
    """Return what an image file, or a page of a TIFF, holds, without decoding a pixel.

    Raises:
        UserError: no image, a kind of image that is not read, or damaged before its pixels.
    """
    file.seek(0)
    header = Header(kind_of(file.read(FIRST_BYTES), name))
    try:
        found = directories(file) if header.kind == "tiff" else []
        if found and is_raw(file, found, name):
            header.kind = readable(CAMERA_RAW, name)
        if header.kind == "tiff":
            tiff_layout(found, header, name, page)
        else:
            READERS[header.kind](file, header, name)
    except DAMAGE as error:
        raise UserError(damaged(name, error)) from None
    if not header.height or not header.width:
        raise UserError(damaged(name, "no size"))
    profile = header.icc_profile
    if profile is not None and (len(profile) < 128 or profile[36:40] != b"acsp"
                                or int.from_bytes(profile[:4], "big") > len(profile)):  # fmt: skip
        header.icc_profile = None
        header.notes.append("ICC profile (damaged)")
    if header.kind != "raw":
        header.orientation = _orientation(header)
    return header


def _read_png(file: IO[bytes], header: Header, name: str) -> None:
    for chunk, content, right in png_chunks(file):
        if not right:
            # the decoder refuses a wrong one that the pixels need
            if chunk[0] & 0x20:
                header.notes.append(f"{_word(chunk)} (wrong checksum)")
        elif chunk == b"IHDR":
            header.width, header.height, bits, colour = struct.unpack(">IIBB", content[:10])
            header.bits = 16 if bits == 16 else 8
            header.channels = PNG_CHANNELS[colour]
        elif chunk == b"tRNS":
            header.channels += header.channels % 2
        elif chunk == b"acTL" and len(content) == 8:
            header.pages = max(1, struct.unpack(">I", content[:4])[0])
        elif chunk == b"eXIf":
            header.exif = content.removeprefix(EXIF)  # some write it as into a JPEG
        elif chunk == b"iTXt" and content.startswith(PNG_XMP):
            header.xmp = _png_xmp(content[len(PNG_XMP) :], header)
        elif chunk == b"iCCP":
            header.icc_profile = _png_profile(content)
        elif chunk == b"pHYs" and len(content) == 9:
            x, y, unit = struct.unpack(">IIB", content)
            header.density = (x, y, "metre" if unit else "none")
        elif content.startswith(PNG_IPTC) and (found := _png_iptc(chunk, content)):
            header.iptc, header.photoshop = (
                (header.iptc, found) if found.startswith(b"8BIM") else (found, header.photoshop)
            )
        elif chunk in KEPT_CHUNKS:
            if len(content) == CHUNK_BYTES.get(chunk, len(content)):
                header.chunks.append((chunk, content))
            else:
                header.notes.append(f"{chunk.decode()} (damaged)")
        elif chunk == b"caBX":
            header.notes.append("content credentials (C2PA)")
        elif not chunk[0] & 0x20 and chunk not in NEEDED_CHUNKS:
            part = _word(chunk)
            raise UserError(f"{name}: PNG with a part that is not read ({part}); save it anew")
        elif chunk not in (*NEEDED_CHUNKS, *ENCODING_CHUNKS):
            header.notes.append(_word(chunk))
    # significant bits of a palette, or of channels before a colour became alpha
    header.chunks = [
        kept for kept in header.chunks if kept[0] != b"sBIT" or len(kept[1]) == header.channels
    ]


def _png_xmp(content: bytes, header: Header) -> bytes | None:
    """Return the text behind flag, method, language and translated name (PNG, 11.3.3.4)."""
    packed, text = content[:1] == b"\1", content[2:].split(b"\0", 2)[-1]
    found = inflated(text) if packed else text
    if not found:
        header.notes.append("XMP (damaged)")
    return found


def _png_iptc(chunk: bytes, content: bytes) -> bytes | None:
    """Return what a text holds as a name, a number of bytes and as many hexadecimal numbers.

    So ImageMagick, ExifTool and exiv2 write it; None if it is not so.
    """
    text = content[len(PNG_IPTC[0]) :]
    found = RAW_PROFILE.fullmatch((inflated(text[1:]) or b"") if chunk == b"zTXt" else text)
    digits = b"".join(found[2].split()) if found else b""
    if not found or len(digits) != 2 * int(found[1]):
        return None
    return bytes.fromhex(digits.decode())


def _png_profile(content: bytes) -> bytes:
    """Return the profile behind name and method (PNG, 11.3.2.3), empty if it is damaged."""
    return inflated(content[content.find(b"\0") + 2 :]) or b""


def _read_jpeg(file: IO[bytes], header: Header, name: str) -> None:
    profile: dict[int, bytes] = {}
    for marker, content in jpeg_segments(file):
        if marker in FRAMES:
            bits, header.height, header.width, header.channels = struct.unpack(">BHHB", content[:6])
            if bits != 8:
                raise UserError(f"{name}: JPEG of {bits} bits; save it as a 16-bit PNG or TIFF")
            if header.channels == 4:
                raise UserError(f"{name}: CMYK colours; save it as RGB")
            if header.channels not in (1, 3):
                raise UserError(damaged(name, f"JPEG of {header.channels} channels"))
        elif marker in OTHER_FRAMES:
            raise UserError(f"{name}: lossless or hierarchical JPEG; save it as PNG or TIFF")
        elif marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            unit, x, y = struct.unpack(">BHH", content[7:12])
            header.density = (x, y, {1: "inch", 2: "centimetre"}.get(unit, "none"))
        elif marker == 0xE1 and content.startswith(EXIF) and header.exif is None:
            header.exif = content[len(EXIF) :]
        elif marker == 0xE1 and content.startswith(XMP) and header.xmp is None:
            header.xmp = content[len(XMP) :]
        elif marker == 0xE1 and content.startswith(MORE_XMP):
            header.notes.append("extended XMP")
        elif marker == 0xE2 and content.startswith(ICC) and len(content) > 14:
            profile[content[12]] = content[14:]
        elif marker == 0xE2 and content.startswith(MPF):
            header.notes.append("further pictures in the file (MPF)")
        elif marker == 0xE2 and content.startswith(ISO_GAIN_MAP):
            header.notes.append(GAIN_MAP)
        elif marker == 0xED and content.startswith(PHOTOSHOP):
            header.photoshop = (header.photoshop or b"") + content[len(PHOTOSHOP) :]
        elif marker == 0xFE:
            header.comments.append(content)
        elif marker == 0xEB:
            header.notes.append("content credentials (C2PA)" if b"c2pa" in content else "APP11")
        elif 0xE1 <= marker <= 0xEF and marker not in WITHOUT_NOTE:
            header.notes.append(f"APP{marker - 0xE0} ({_word(content)})")
    header.icc_profile = b"".join(profile[key] for key in sorted(profile)) or None
    header.notes = list(dict.fromkeys(header.notes))
    _note_gain_map(file, header)


def _word(content: bytes) -> str:
    """Return the name that a segment or chunk begins with, as far as it can be printed."""
    text = content[:20].partition(b"\0")[0].decode("ascii", "replace")
    return "".join(filter(str.isprintable, text)) or "without a name"


def _note_gain_map(file: IO[bytes], header: Header) -> None:
    """Note what lies behind the picture; XMP that describes it goes with it."""
    xmp = header.xmp or b""
    further = [note for note in header.notes if "MPF" in note]
    pixels = file.read()  # the walk over the segments ended where they begin
    behind = pixels.partition(b"\xff\xd9")[2].strip(b"\0\xff")  # cameras fill up their files
    described = any(word in xmp for word in GAIN_MAP_IN_XMP)
    gain_map = described or GAIN_MAP in header.notes
    moving = b"MotionPhoto" in xmp or b"MicroVideo" in xmp
    if gain_map or moving:
        header.notes = [note for note in header.notes if note not in (*further, GAIN_MAP)]
        header.notes.append(GAIN_MAP if gain_map else "video of a motion photo")
        if described or moving:
            header.notes.append(XMP_OF_LOST)
            header.xmp = None
    elif further:
        header.notes[header.notes.index(further[0])] = "gain map or other further pictures (MPF)"
    elif behind:
        header.notes.append("data behind the picture")


def _read_with_pillow(file: IO[bytes], header: Header, name: str) -> None:
    """Read the header of a WebP, BMP or HEIF."""
    file.seek(0)
    try:
        image = Image.open(file, formats=[pillow_format(header.kind)])
        header.pages = int(getattr(image, "n_frames", 1))
    except UnidentifiedImageError:
        raise UserError(damaged(name, f"{header.kind.upper()} without a picture")) from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: {error}") from None
    header.width, header.height = image.size
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "RGBA"):
        raise UserError(f"{name}: {image.mode} values; save it as PNG, TIFF or JPEG")
    header.channels = {"1": 1, "L": 1, "RGBA": 4}.get(image.mode, 3)
    header.exif = _blob(image.info.get("exif"), EXIF)
    header.xmp = _blob(image.info.get("xmp"))
    header.icc_profile = _blob(image.info.get("icc_profile"))
    if image.info.get("bit_depth", 8) > 8:
        header.notes.append(f"{image.info['bit_depth']} bits (8 are read)")
    for kind in image.info.get("aux", ()):  # of a phone's HEIC, by its URN
        gain_map = "gainmap" in kind.lower()
        header.notes.append(GAIN_MAP if gain_map else f"further picture ({kind.split(':')[-1]})")
        if gain_map and any(word in (header.xmp or b"") for word in GAIN_MAP_IN_XMP):
            header.notes.append(XMP_OF_LOST)
            header.xmp = None
    if any(image.info.get("depth_images", ())):
        header.notes.append("depth map")
    if "dpi" in image.info and header.kind == "bmp":
        header.density = (*map(float, image.info["dpi"]), "inch")  # type: ignore[assignment]


def _blob(found: Any, prefix: bytes = b"") -> bytes | None:
    return bytes(found).removeprefix(prefix) or None if isinstance(found, bytes) else None


def _orientation(header: Header) -> int:
    """Return the orientation of EXIF data, else of XMP, else 1; nonsense is noted."""
    values: Iterable[Any] = ()
    try:
        if header.directory is not None:
            values = [header.directory.get(EXIF_ORIENTATION)]
        elif header.exif is not None:
            values = [directory(io.BytesIO(header.exif)).get(EXIF_ORIENTATION)]
    except DAMAGE:
        header.notes.append("EXIF (damaged)")
        header.exif = None
    for value in values:
        if isinstance(value, int) and 1 <= value <= 8:
            return value
        if value is not None:
            header.notes.append("orientation (not a number from 1 to 8)")
    found = ORIENTATION_IN_XMP.search(header.xmp or b"")
    return int(found[1]) if found else 1


READERS = {
    "png": _read_png,
    "jpeg": _read_jpeg,
    "webp": _read_with_pillow,
    "bmp": _read_with_pillow,
    "heif": _read_with_pillow,
    "raw": read_raw,
}
