"""Write a TIFF strip by strip, with EXIF directories that tifffile does not write."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from pipeline.images.reading.decoding import KINDS
from pipeline.images.reading.tiff import IPTC, XMP
from pipeline.images.reading.window import Values
from pipeline.inference.photographs.exif import KEPT_TAGS, PHOTO, PLACE, add_directories
from pipeline.inference.photographs.metadata import Metadata
from pipeline.inference.photographs.reading import Form

STRIP_ROWS = 64
TIFF_CLASSIC_BYTES = 4_000_000_000
"""Offsets of a TIFF have 32 bits; a larger one is written as BigTIFF."""
BYTE, UNDEFINED = 1, 7
"""Types of bytes in a TIFF."""
TIFF_NAMES = {PHOTO: "ExifTag", PLACE: "GPSTag"}


def write_tiff(
    path: Path, form: Form, strips: Iterator[Values], page: int = 0, pages: int = 1
) -> None:
    """Write upright rows, given in strips of STRIP_ROWS rows, the last one shorter.

    Pages are written in order; those behind the first have no EXIF data of their own.
    """
    size = pages * form.height * form.width * form.channels * form.bits // 8
    big = size > TIFF_CLASSIC_BYTES
    metadata = form.metadata
    with tifffile.TiffWriter(path, byteorder="<", bigtiff=big, append=page > 0) as file:
        file.write(
            (_tiff_strip(strip) for strip in strips),
            shape=(form.height, form.width, form.channels)[: 3 if form.channels > 1 else 2],
            dtype=KINDS[form.bits],
            photometric="rgb" if form.channels > 2 else "minisblack",
            planarconfig="contig" if form.channels > 1 else None,
            extrasamples=["unassalpha"] if form.has_alpha else None,
            rowsperstrip=STRIP_ROWS,
            compression="zlib",
            predictor="horizontal" if form.bits < 32 else None,
            iccprofile=metadata.icc_profile,
            resolution=metadata.density or metadata.scale,
            resolutionunit=("INCH" if metadata.density else
                            "NONE" if metadata.scale else None),
            extratags=_tiff_tags(metadata, big, page),
            metadata=None,
            software=False,
            maxworkers=1,
        )  # fmt: skip
    if metadata.exif and not page:
        add_directories(path, metadata.exif, big)


def _tiff_tags(
    metadata: Metadata, big: bool, page: int
) -> list[tuple[int | str, str | int, int, bytes | int, bool]]:
    """Return the kept tags of the first directory, and pointers to others, set later."""
    exif = metadata.exif
    main = exif.main if exif else {}
    texts = {tag: str(main[tag][1]).encode("latin-1", "replace")
             for tag in KEPT_TAGS if tag in main}  # fmt: skip
    blobs = {(XMP, BYTE): metadata.xmp, (IPTC, UNDEFINED): metadata.iptc}
    return [
        *((tag, "s", 0, text, True) for tag, text in texts.items() if text),
        *((tag, kind, len(blob), blob, True) for (tag, kind), blob in blobs.items() if blob),
        # by its number tifffile writes no such tag
        *((TIFF_NAMES[tag], "Q" if big else "I", 1, 0, True)
          for tag in (exif.pointers() if exif and not page else ())),
    ]  # fmt: skip


def _tiff_strip(strip: Values) -> bytes:
    """Return rows compressed, integers as differences from the left (TIFF 6.0, section 14)."""
    if strip.dtype != np.float32:
        strip = np.concatenate([strip[:, :1], strip[:, 1:] - strip[:, :-1]], axis=1)
    return zlib.compress(strip.astype(strip.dtype.newbyteorder("<")).tobytes())
