"""Write a photograph row by row as PNG or TIFF of 8 or 16 bits, or as JPEG.

Pillow writes no colours of 16 bits and wants the whole photograph at once, so PNG is written here
(a few chunks around zlib) and TIFF with tifffile. JPEG is Pillow's, of the whole.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from PIL import Image as PillowImage

from pipeline.inference.photographs.exif import (
    KEPT_TAGS,
    PHOTO,
    PLACE,
    Density,
    Exif,
    add_directories,
)
from pipeline.inference.photographs.reading import Form, Values
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing

Format = Literal["png", "tiff", "jpeg"]

JPEG_QUALITY = 95
JPEG_LONGEST = 65_535
"""Pixels of a side that a JPEG can have (ITU-T T.81, B.2.2)."""
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""From the number of channels (PNG specification, 11.2.1)."""
PNG_COMPRESSION = 3
"""Of photographs: within 1 % of level 6 in size, in a third of the time."""
PNG_CHUNK_BYTES = 2**18
PNG_METRE = 1
"""The unit of pHYs (PNG specification, 11.3.4.3)."""
METRES_AN_INCH = 0.0254
STRIP_ROWS = 64
TIFF_CLASSIC_BYTES = 4_000_000_000
"""Offsets of a TIFF have 32 bits; a larger one is written as BigTIFF."""
TIFF_NAMES = {PHOTO: "ExifTag", PLACE: "GPSTag"}


def write_picture(path: Path, kind: Format, form: Form, rows: Iterator[Values]) -> None:
    """Write upright rows, given in bands from the top, whole or not at all.

    Raises:
        UserError: the format cannot hold such a photograph.
        OSError: the file cannot be written.
    """
    if kind == "jpeg":
        _require_jpeg(form)
    with replacing(path) as partial:
        WRITERS[kind](partial, form, rows)


def _write_png(path: Path, form: Form, rows: Iterator[Values]) -> None:
    colour = PNG_COLOUR_TYPES[form.channels]
    header = struct.pack(">IIBBBBB", form.width, form.height, form.bits, colour, 0, 0, 0)
    bytes_a_pixel = form.channels * form.bits // 8
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header))
        if form.icc_profile:
            file.write(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(form.icc_profile)))
        if form.density:
            file.write(_chunk(b"pHYs", struct.pack(">IIB", *_a_metre(form.density), PNG_METRE)))
        if form.exif:
            file.write(_chunk(b"eXIf", form.exif.packed()))
        compressor = zlib.compressobj(PNG_COMPRESSION, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
        above = np.zeros((1, form.width * bytes_a_pixel), np.uint8)
        waiting = b""
        for strip in _strips(rows):
            in_file_order = strip.astype(">u2") if form.bits == 16 else strip
            raw = np.ascontiguousarray(in_file_order).view(np.uint8).reshape(len(strip), -1)
            waiting += compressor.compress(_filtered(raw, above, bytes_a_pixel))
            above = raw[-1:]
            if len(waiting) > PNG_CHUNK_BYTES:
                file.write(_chunk(b"IDAT", waiting))
                waiting = b""
        file.write(_chunk(b"IDAT", waiting + compressor.flush()) + _chunk(b"IEND", b""))


def _a_metre(density: Density) -> tuple[int, int]:
    x, y = (round(value / METRES_AN_INCH) for value in density)
    return x, y


def _filtered(raw: Values, above: Values, bytes_a_pixel: int) -> bytes:
    """Return rows as what Paeth's predictor leaves of them (PNG specification, 9.4)."""
    up = np.concatenate([above, raw[:-1]]).astype(np.int16)
    left, corner = np.zeros_like(up), np.zeros_like(up)
    left[:, bytes_a_pixel:] = raw[:, :-bytes_a_pixel]
    corner[:, bytes_a_pixel:] = up[:, :-bytes_a_pixel]
    # distances of left + up - corner from each of the three
    to_left, to_up = np.abs(up - corner), np.abs(left - corner)
    to_corner = np.abs(left + up - 2 * corner)
    predicted = np.where(
        (to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner)
    )
    lines = np.full((len(raw), raw.shape[1] + 1), 4, np.uint8)  # 4 names the predictor
    lines[:, 1:] = (raw - predicted).astype(np.uint8)
    return lines.tobytes()


def _chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def _write_tiff(path: Path, form: Form, rows: Iterator[Values]) -> None:
    size = form.height * form.width * form.channels * form.bits // 8
    big = size > TIFF_CLASSIC_BYTES
    with tifffile.TiffWriter(path, byteorder="<", bigtiff=big) as file:
        file.write(
            (_tiff_strip(strip) for strip in _strips(rows)),
            shape=(form.height, form.width, form.channels)[: 3 if form.channels > 1 else 2],
            dtype=np.uint16 if form.bits == 16 else np.uint8,
            photometric="rgb" if form.channels > 2 else "minisblack",
            planarconfig="contig" if form.channels > 1 else None,
            extrasamples=["unassalpha"] if form.has_alpha else None,
            rowsperstrip=STRIP_ROWS,
            compression="zlib",
            predictor="horizontal",
            iccprofile=form.icc_profile,
            resolution=form.density,
            resolutionunit="INCH" if form.density else None,
            extratags=_tiff_tags(form.exif, big) if form.exif else (),
            metadata=None,
            software=False,
            maxworkers=1,
        )
    if form.exif:
        add_directories(path, form.exif, big)


def _tiff_tags(exif: Exif, big: bool) -> list[tuple[int | str, str, int, bytes | int, bool]]:
    """Return the kept tags of the first directory, and pointers to others, set later."""
    texts = {tag: str(exif.main[tag][1]).encode("latin-1", "replace")
             for tag in KEPT_TAGS if tag in exif.main}  # fmt: skip
    return [
        *((tag, "s", 0, text, True) for tag, text in texts.items() if text),
        # by its number tifffile writes no such tag
        *((TIFF_NAMES[tag], "Q" if big else "I", 1, 0, True) for tag in exif.pointers()),
    ]


def _tiff_strip(strip: Values) -> bytes:
    """Return rows as differences from the left neighbour, compressed (TIFF 6.0, section 14)."""
    differences = np.concatenate([strip[:, :1], strip[:, 1:] - strip[:, :-1]], axis=1)
    return zlib.compress(differences.astype(differences.dtype.newbyteorder("<")).tobytes())


def _write_jpeg(path: Path, form: Form, rows: Iterator[Values]) -> None:
    image = PillowImage.new("L" if form.channels == 1 else "RGB", (form.width, form.height))
    top = 0
    for strip in _strips(rows):
        image.paste(
            PillowImage.fromarray(strip.squeeze(2) if form.channels == 1 else strip), (0, top)
        )
        top += len(strip)
    encoded = io.BytesIO()  # a full disk is told by its own error, not by the encoder's
    try:
        image.save(
            encoded,
            "JPEG",
            quality=JPEG_QUALITY,
            subsampling="4:4:4",
            icc_profile=form.icc_profile,
            exif=b"Exif\0\0" + form.exif.packed() if form.exif else b"",
            dpi=tuple(map(round, form.density or (0, 0))),
        )
    except ValueError as error:  # EXIF data or a profile of more than a JPEG can hold
        raise UserError(f"JPEG cannot hold it ({error}); use --format png or tiff") from None
    path.write_bytes(encoded.getbuffer())


def _require_jpeg(form: Form) -> None:
    if form.bits == 16 or form.has_alpha:
        found = "16 bits" if form.bits == 16 else "an alpha channel"
        raise UserError(f"JPEG cannot hold {found}; use --format png or tiff")
    if max(form.height, form.width) > JPEG_LONGEST:
        raise UserError(
            f"JPEG cannot hold {form.width} x {form.height} pixels, at most"
            f" {JPEG_LONGEST} a side; use --format png or tiff"
        )


def _strips(rows: Iterator[Values]) -> Iterator[Values]:
    """Cut bands of any height into strips of STRIP_ROWS rows, the last one shorter."""
    waiting: Values | None = None
    for band in rows:
        waiting = band if waiting is None else np.concatenate([waiting, band])
        whole = len(waiting) - len(waiting) % STRIP_ROWS
        for top in range(0, whole, STRIP_ROWS):
            yield waiting[top : top + STRIP_ROWS]
        waiting = waiting[whole:]
    if waiting is not None and len(waiting):
        yield waiting


WRITERS: dict[Format, Callable[[Path, Form, Iterator[Values]], None]] = {
    "png": _write_png,
    "tiff": _write_tiff,
    "jpeg": _write_jpeg,
}
