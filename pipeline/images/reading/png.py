"""What the chunks of a PNG say (PNG, third edition)."""

import re
import struct
from typing import IO

from pipeline.images.reading.containers import EXIF, first_word, inflated, png_chunks
from pipeline.images.reading.header import Header
from pipeline.runtime.errors import UserError

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
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


def read_png(file: IO[bytes], header: Header, name: str) -> None:
    """Fill in what the chunks of a PNG say.

    Raises:
        UserError: a part that pixels need is not known.
    """
    for chunk, content, right in png_chunks(file):
        if not right:
            # the decoder refuses a wrong one that the pixels need
            if chunk[0] & 0x20:
                header.notes.append(f"{first_word(chunk)} (wrong checksum)")
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
            part = first_word(chunk)
            raise UserError(f"{name}: PNG with a part that is not read ({part}); save it anew")
        elif chunk not in (*NEEDED_CHUNKS, *ENCODING_CHUNKS):
            header.notes.append(first_word(chunk))
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
