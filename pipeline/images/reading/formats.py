"""What an image file says of itself: the one place that decides what is read.

Each format has a list of what is supported. All else is refused with what was found. An error in
what only describes the picture (EXIF, profile, text) is noted, never taken for one of the picture.
"""

import io
import re
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
    pillow_format,
)
from pipeline.images.reading.header import Header
from pipeline.images.reading.jpeg import GAIN_MAP, GAIN_MAP_IN_XMP, XMP_OF_LOST, read_jpeg
from pipeline.images.reading.png import read_png
from pipeline.images.reading.raw import is_raw, read_raw
from pipeline.images.reading.tiff import tiff_layout
from pipeline.runtime.errors import UserError

ORIENTATION_IN_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])")


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
    "png": read_png,
    "jpeg": read_jpeg,
    "webp": _read_with_pillow,
    "bmp": _read_with_pillow,
    "heif": _read_with_pillow,
    "raw": read_raw,
}
