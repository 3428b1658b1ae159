"""What travels with the pixels of a photograph into its restored file, and what cannot."""

import io
import re
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.images.files import SIDEWAYS
from pipeline.images.reading.containers import DAMAGE
from pipeline.images.reading.header import Header
from pipeline.inference.photographs.exif import CENTIMETRES_AN_INCH, Density, Exif, read_exif

INCHES = {"inch": 1.0, "centimetre": CENTIMETRES_AN_INCH, "metre": 0.0254}
"""What makes a density one an inch."""
DENSITIES = (1, 65_535)
"""What a JPEG can hold; others are no density of a photograph and not kept."""
ORIENTATION_IN_XMP = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[1-8]")
LARGEST_SCALE = 2**31 - 1
"""What a PNG can hold; it holds whole numbers only."""
JPEG_SEGMENT = 65_502
"""Bytes of XMP that a JPEG can hold (XMP specification, part 3, 1.1.3)."""
IPTC_RESOURCE = 0x0404
"""Of Photoshop's image resources."""


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels, of the upright picture.

    ``density`` is pixels an inch; ``scale`` the same numbers where they have no unit, as ImageJ
    writes them. ``chunks`` are those of a PNG, as they are.
    """

    icc_profile: bytes | None = None
    exif: Exif | None = None
    density: Density | None = None
    scale: Density | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    comments: tuple[bytes, ...] = ()
    chunks: tuple[tuple[bytes, bytes], ...] = field(default=())

    def without(self, format_name: str) -> tuple["Metadata", list[str]]:
        """Return what a format can hold, and names of the rest."""
        lost = []
        kept = self
        if format_name != "png" and self.chunks:
            # sRGB says what is meant without it
            names = {name.decode() for name, _ in self.chunks} - {"sRGB"}
            lost += [", ".join(sorted(names))] if names else []
            kept = replace(kept, chunks=())
        if format_name == "jpeg" and len(self.xmp or b"") > JPEG_SEGMENT:
            lost.append("XMP (too long for JPEG)")
            kept = replace(kept, xmp=None)
        if format_name == "jpeg" and len(self.iptc or b"") > JPEG_SEGMENT:
            lost.append("IPTC (too long for JPEG)")
            kept = replace(kept, iptc=None)
        if format_name == "webp" and self.density:
            lost.append("pixel density")
            kept = replace(kept, density=None)
        if format_name == "webp" and self.iptc:
            lost.append("IPTC")
            kept = replace(kept, iptc=None)
        if format_name != "jpeg" and self.comments:
            lost.append("JPEG comment")
            kept = replace(kept, comments=())
        whole = all(value == round(value) for value in self.scale or ())
        if self.scale and format_name != "tiff" and not (format_name == "png" and whole):
            lost.append("pixel scale without unit")
            kept = replace(kept, scale=None)
        return kept, lost


def read_metadata(path: Path, header: Header) -> Metadata:
    """Return what a photograph's file says; what is damaged is noted in ``header.notes``."""
    turned = header.orientation in SIDEWAYS
    exif, from_exif = None, None
    try:
        if header.directory is not None:
            with path.open("rb") as file:
                exif, _, _ = read_exif(file, header.directory, True, turned)
        elif header.exif:
            exif, from_exif, whole = read_exif(io.BytesIO(header.exif), None, False, turned)
            if not whole:
                header.notes.append("EXIF (some of it, damaged)" if exif else "EXIF (damaged)")
    except DAMAGE:
        header.notes.append("EXIF (damaged)")
    found = header.density
    density = scale = None
    if found and found[2] != "none":
        density = _density(found[0] * INCHES[found[2]], found[1] * INCHES[found[2]], turned)
    elif (
        found and header.kind in ("tiff", "png") and found[:2] != (1, 1)
        and all(0 < value <= LARGEST_SCALE for value in found[:2])
    ):  # fmt: skip
        scale = found[1::-1] if turned else found[:2]
    elif from_exif:
        density = _density(*from_exif, False)
    xmp = header.xmp and ORIENTATION_IN_XMP.sub(rb"\g<1>1", header.xmp)
    iptc = header.iptc or _iptc(header.photoshop or b"", header.notes)
    comments, chunks = tuple(header.comments), tuple(header.chunks)
    return Metadata(header.icc_profile, exif, density, scale, xmp, iptc, comments, chunks)


def _density(x: float, y: float, turned: bool) -> Density | None:
    lowest, highest = DENSITIES
    if not (lowest <= x <= highest and lowest <= y <= highest):
        return None
    return (y, x) if turned else (x, y)


def _iptc(resources: bytes, notes: list[str]) -> bytes | None:
    """Return the IPTC record among Photoshop's image resources."""
    place = 0
    while resources[place : place + 4] == b"8BIM" and place + 12 <= len(resources):
        (kind, name) = struct.unpack(">HB", resources[place + 4 : place + 7])
        start = place + 6 + (name + 2) // 2 * 2
        size = int.from_bytes(resources[start : start + 4], "big")
        if kind == IPTC_RESOURCE:
            found = resources[start + 4 : start + 4 + size]
            if len(found) == size:
                return found or None
            notes.append("IPTC (damaged)")
        place = start + 4 + size + size % 2
    return None


def photoshop_resources(iptc: bytes) -> bytes:
    """Return an IPTC record as the only one of Photoshop's image resources."""
    head = b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc))
    return head + iptc + bytes(len(iptc) % 2)
