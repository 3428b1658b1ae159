"""What the segments of a JPEG say (ITU-T T.81), and what lies behind its picture."""

import struct
from typing import IO

from pipeline.images.files import damaged
from pipeline.images.reading.containers import EXIF, first_word, jpeg_segments
from pipeline.images.reading.header import Header
from pipeline.runtime.errors import UserError

XMP, MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/ext"
ICC, PHOTOSHOP, MPF = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0"
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
GAIN_MAP = "gain map"
GAIN_MAP_IN_XMP = (b"hdrgm", b"HDRGainMap", b"hdr-gain-map")
XMP_OF_LOST = "XMP (it describes what is not kept)"
WITHOUT_NOTE = (0xEC, 0xED, 0xEE)
"""Segments that say how a JPEG was encoded (Ducky, Adobe), and Photoshop's, whose IPTC is kept."""
FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
"""Start of a frame that is read: baseline, extended, progressive (ITU-T T.81, table B.1)."""
OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}


def read_jpeg(file: IO[bytes], header: Header, name: str) -> None:
    """Fill in what the segments of a JPEG say.

    Raises:
        UserError: a kind of JPEG that is not read; says which.
    """
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
            header.notes.append(f"APP{marker - 0xE0} ({first_word(content)})")
    header.icc_profile = b"".join(profile[key] for key in sorted(profile)) or None
    header.notes = list(dict.fromkeys(header.notes))
    _note_gain_map(file, header)


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
