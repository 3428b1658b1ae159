"""Write a photograph row by row as PNG or TIFF, or whole as JPEG or WebP.

OpenImageIO and Pillow place the chunks of a PNG as they see fit and change EXIF data, so PNG is
written here (a few chunks around zlib: as small, and as fast as libpng at the same level), TIFF
with tifffile. JPEG and WebP are Pillow's.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as PillowImage

from pipeline.images.reading.png import PNG_IPTC, PNG_XMP
from pipeline.inference.photographs.metadata import Metadata, photoshop_resources
from pipeline.inference.photographs.reading import Form, Values
from pipeline.inference.photographs.tiff import STRIP_ROWS, write_tiff
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing

Format = Literal["png", "tiff", "jpeg", "webp"]


@dataclass(frozen=True)
class Limits:
    """What a format can hold, and which to take instead of it."""

    name: str
    bits: int
    alpha: bool
    side: int
    instead: str = "png or tiff"


LIMITS: dict[Format, Limits] = {
    "png": Limits("PNG", 16, True, 2**31 - 1, "tiff"),
    "tiff": Limits("TIFF", 32, True, 2**31 - 1),
    "jpeg": Limits("JPEG", 8, False, 65_535),  # ITU-T T.81, B.2.2
    "webp": Limits("WebP", 8, True, 16_383),  # its container's specification
}
QUALITY = 95
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""From the number of channels (PNG specification, 11.2.1)."""
PNG_COMPRESSION = 3
"""Of photographs: within 1 % of level 6 in size, in a third of the time."""
PNG_CHUNK_BYTES = 2**18
PNG_NO_UNIT, PNG_METRE = 0, 1
"""The units of pHYs (PNG specification, 11.3.4.3)."""
METRES_AN_INCH = 0.0254
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def write_picture(
    path: Path,
    kind: Format,
    form: Form,
    rows: Iterator[Values],
    quality: int = QUALITY,
    exclusive: bool = False,
) -> None:
    """Write upright rows, given in bands from the top, whole or not at all.

    Args:
        path: the file.
        kind: its format; what of the metadata it cannot hold is left out (``Metadata.without``).
        form: size, channels, bits, metadata.
        rows: (rows, width, channels) of uint8, uint16 or float32.
        quality: of JPEG and WebP, 1 to 100.
        exclusive: refuse to replace a file that is there by then.

    Raises:
        UserError: the format cannot hold such a photograph.
        FileExistsError: ``exclusive``, and there is a file.
        OSError: the file cannot be written.
    """
    _require_held(kind, form)
    form = replace(form, metadata=form.metadata.without(kind)[0])
    with replacing(path, exclusive) as partial:
        WRITERS[kind](partial, form, strips(rows, STRIP_ROWS), quality)


def write_pages(
    path: Path, pages: Iterable[tuple[Form, Iterator[Values]]], count: int, exclusive: bool
) -> None:
    """Write a TIFF of several pages as ``write_picture`` writes one."""
    with replacing(path, exclusive) as partial:
        for page, (form, rows) in enumerate(pages):
            write_tiff(partial, form, strips(rows, STRIP_ROWS), page, count)


def _write_png(path: Path, form: Form, rows: Iterator[Values], quality: int) -> None:
    colour = PNG_COLOUR_TYPES[form.channels]
    header = struct.pack(">IIBBBBB", form.width, form.height, form.bits, colour, 0, 0, 0)
    bytes_a_pixel = form.channels * form.bits // 8
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header))
        for name, content in _png_metadata(form.metadata):
            file.write(_chunk(name, content))
        compressor = zlib.compressobj(PNG_COMPRESSION, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
        above = np.zeros((1, form.width * bytes_a_pixel), np.uint8)
        waiting = b""
        for strip in rows:
            in_file_order = strip.astype(">u2") if form.bits == 16 else strip
            raw = np.ascontiguousarray(in_file_order).view(np.uint8).reshape(len(strip), -1)
            waiting += compressor.compress(_filtered(raw, above, bytes_a_pixel))
            above = raw[-1:]
            if len(waiting) > PNG_CHUNK_BYTES:
                file.write(_chunk(b"IDAT", waiting))
                waiting = b""
        file.write(_chunk(b"IDAT", waiting + compressor.flush()) + _chunk(b"IEND", b""))


def _png_metadata(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """Yield chunks in an order that the specification allows (PNG, 5.6): all before the pixels."""
    said = {name for name, _ in metadata.chunks}
    yield from (chunk for chunk in metadata.chunks if chunk[0] not in (b"tEXt", b"zTXt", b"iTXt"))
    if metadata.icc_profile and b"sRGB" not in said:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)
    if metadata.density:
        x, y = (round(value / METRES_AN_INCH) for value in metadata.density)
        yield b"pHYs", struct.pack(">IIB", x, y, PNG_METRE)
    elif metadata.scale:
        yield b"pHYs", struct.pack(">IIB", *map(round, metadata.scale), PNG_NO_UNIT)
    if metadata.exif:
        yield b"eXIf", metadata.exif.packed()
    if metadata.xmp:
        yield b"iTXt", PNG_XMP + bytes(4) + metadata.xmp
    if metadata.iptc:
        # among Photoshop's resources, as ExifTool and exiv2 look for it
        digits = (held := photoshop_resources(metadata.iptc)).hex()
        lines = "".join(f"{digits[at : at + 72]}\n" for at in range(0, len(digits), 72))
        yield (
            b"zTXt",
            PNG_IPTC[0] + b"\0" + zlib.compress(f"\niptc\n{len(held):8}\n{lines}".encode()),
        )
    yield from (chunk for chunk in metadata.chunks if chunk[0] in (b"tEXt", b"zTXt", b"iTXt"))


def _filtered(raw: Values, above: Values, bytes_a_pixel: int) -> bytes:
    """Return rows as what the predictor Average leaves of them (PNG specification, 9.2).

    Of photographs it leaves as little as Paeth's, in less time.
    """
    up = np.concatenate([above, raw[:-1]]).astype(np.uint16)
    up[:, bytes_a_pixel:] += raw[:, :-bytes_a_pixel]
    lines = np.full((len(raw), raw.shape[1] + 1), 3, np.uint8)  # 3 names the predictor
    lines[:, 1:] = raw - (up >> 1).astype(np.uint8)
    return lines.tobytes()


def _chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def _whole(form: Form, rows: Iterator[Values]) -> PillowImage.Image:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[form.channels]
    image = PillowImage.new(mode, (form.width, form.height))
    top = 0
    for strip in rows:
        image.paste(PillowImage.fromarray(np.squeeze(strip, 2) if form.channels == 1 else strip),
                    (0, top))  # fmt: skip
        top += len(strip)
    return image


def _write_jpeg(path: Path, form: Form, rows: Iterator[Values], quality: int) -> None:
    metadata = form.metadata
    iptc = photoshop_resources(metadata.iptc) if metadata.iptc else b""
    parts = [(0xE1, JPEG_XMP, metadata.xmp), (0xED, b"Photoshop 3.0\0", iptc),
             *((0xFE, b"", comment) for comment in metadata.comments)]  # fmt: skip
    image, encoded = _whole(form, rows), io.BytesIO()  # a full disk is reported by its own error
    try:
        image.save(
            encoded,
            "JPEG",
            quality=quality,
            subsampling="4:4:4",
            icc_profile=metadata.icc_profile,
            exif=b"Exif\0\0" + metadata.exif.packed() if metadata.exif else b"",
            dpi=tuple(map(round, metadata.density or (0, 0))),
            extra=b"".join(_segment(marker, head + part) for marker, head, part in parts if part),
        )
    except (ValueError, struct.error) as error:  # a part of more than a JPEG can hold
        raise UserError(f"JPEG cannot hold it ({error}); use --format png or tiff") from None
    path.write_bytes(encoded.getbuffer())


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _write_webp(path: Path, form: Form, rows: Iterator[Values], quality: int) -> None:
    metadata, encoded = form.metadata, io.BytesIO()
    image = _whole(form, rows).convert("RGBA" if form.has_alpha else "RGB")
    image.save(
        encoded,
        "WEBP",
        quality=quality,
        exact=True,
        icc_profile=metadata.icc_profile or b"",
        exif=b"Exif\0\0" + metadata.exif.packed() if metadata.exif else b"",
        xmp=metadata.xmp or b"",
    )
    path.write_bytes(encoded.getbuffer())


def _require_held(kind: Format, form: Form) -> None:
    """Refuse what a format cannot hold, before the work."""
    limits = LIMITS[kind]
    found = "float32 values" if form.bits == 32 else "16 bits" if form.bits == 16 else ""
    if form.bits > limits.bits:
        raise UserError(f"{limits.name} cannot hold {found}; use --format {limits.instead}")
    if form.has_alpha and not limits.alpha:
        raise UserError(f"{limits.name} cannot hold an alpha channel; use --format png or tiff")
    if max(form.height, form.width) > limits.side:
        raise UserError(
            f"{limits.name} cannot hold {form.width} x {form.height} pixels, at most"
            f" {limits.side} a side; use --format png or tiff"
        )


def strips(rows: Iterator[Values], height: int) -> Iterator[Values]:
    """Cut bands of any height into strips of ``height`` rows, the last one shorter."""
    waiting: Values | None = None
    for band in rows:
        waiting = band if waiting is None else np.concatenate([waiting, band])
        whole = len(waiting) - len(waiting) % height
        for top in range(0, whole, height):
            yield waiting[top : top + height]
        waiting = waiting[whole:]
    if waiting is not None and len(waiting):
        yield waiting


WRITERS: dict[Format, Callable[[Path, Form, Iterator[Values], int], None]] = {
    "png": _write_png,
    "tiff": lambda path, form, rows, quality: write_tiff(path, form, rows),
    "jpeg": _write_jpeg,
    "webp": _write_webp,
}
