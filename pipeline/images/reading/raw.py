"""Raw files of cameras, developed by LibRaw (rawpy, one of the optional packages ``[photos]``)."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.images.files import RAW_ENDINGS
from pipeline.images.reading.containers import DAMAGE, EXIF, directory, jpeg_segments
from pipeline.images.reading.header import Header
from pipeline.images.reading.tiff import (
    DNG_VERSION,
    IPTC,
    PHOTOMETRIC,
    REDUCED,
    SUB_DIRECTORIES,
    SUBFILE,
    XMP,
    as_bytes,
    numbers,
)
from pipeline.images.reading.window import Values
from pipeline.runtime.errors import UserError

OF_A_SENSOR = (32803, 34892)
"""Photometric interpretations of a raw file: a mosaic of colours, or one pixel each (DNG 1.7)."""
MOST_SUB_DIRECTORIES = 16
DEVELOPING: dict[str, Any] = {
    "output_bps": 16,
    "use_camera_wb": True,
    # no brightness by content: LibRaw's own would differ between two photographs of one series
    "no_auto_bright": True,
    "adjust_maximum_thr": 0.0,
    # sRGB's curve (IEC 61966-2-1), which networks are trained on; the default is that of video
    "gamma": (2.4, 12.92),
    "user_flip": 0,  # turned where all others are
}
ORIENTATIONS = {0: 1, 1: 2, 3: 3, 2: 4, 4: 5, 6: 6, 7: 7, 5: 8}
"""EXIF's from LibRaw's (1 mirrors columns, 2 rows, 4 then swaps both)."""


def is_raw(file: IO[bytes], found: list[ImageFileDirectory_v2], name: str) -> bool:
    """Whether a TIFF is a raw file: by its directories, else by its ending.

    Many raw files are to others a TIFF of their own thumbnail.
    """
    below: list[ImageFileDirectory_v2] = []
    for tags in found:
        with suppress(*DAMAGE):
            places = numbers(tags, SUB_DIRECTORIES, 0)[:MOST_SUB_DIRECTORIES]
            below += [directory(file, place) for place in places if place]
    return (
        DNG_VERSION in found[0]
        or any(tags.get(PHOTOMETRIC) in OF_A_SENSOR for tags in (*found, *below))
        or all(numbers(tags, SUBFILE, 0)[0] & REDUCED for tags in found)
        or name.lower().endswith(RAW_ENDINGS)
    )


def read_raw(file: IO[bytes], header: Header, name: str) -> None:
    """Fill in what a raw file says of the picture that is developed from it.

    Raises:
        UserError: LibRaw does not read it.
    """
    header.kind, header.bits = "raw", 16
    header.notes.append("the values of the sensor, and what describes them")
    with _opened(file, name) as raw:
        header.height, header.width = raw.sizes.iheight, raw.sizes.iwidth
        header.channels = 1 if raw.num_colors == 1 else 3
        header.orientation = ORIENTATIONS.get(raw.sizes.flip, 1)
        try:
            header.directory = directory(file)
        except DAMAGE:  # no kind of TIFF, as Canon's CR3 and Fujifilm's RAF
            header.exif = _exif_of_preview(raw)
            header.notes.append("EXIF data but for those of the preview")
            return
    header.xmp = as_bytes(header.directory.get(XMP))
    header.iptc = as_bytes(header.directory.get(IPTC))
    if b"crs:" in (header.xmp or b""):  # programs would develop the result once more
        header.xmp = None
        header.notes.append("XMP (it says how to develop)")


def develop(path: Path, header: Header, name: str) -> Values:
    """Return a raw file as sRGB, (height, width, 1 or 3) uint16, not yet turned.

    White balance and white are the camera's own, the mosaic is filled in by AHD. What is beyond
    white is clipped. The size is set in ``header``, as pixels of some sensors are no squares.

    Raises:
        UserError: damaged, or a kind that LibRaw does not read.
    """
    with path.open("rb") as file, _opened(file, name) as raw:
        values: Values = raw.postprocess(**DEVELOPING)
        if values.shape[2] == 3 and not raw.camera_whitebalance[0]:
            header.notes.append("white balance (the file names none; LibRaw has guessed one)")
    header.height, header.width, header.channels = values.shape
    return values


@contextmanager
def _opened(file: IO[bytes], name: str) -> Iterator[Any]:
    import rawpy

    file.seek(0)
    try:
        opened: Any = rawpy.RawPy()
        with opened as raw:
            raw.open_buffer(file)
            yield raw
    except (rawpy.LibRawError, rawpy.NotSupportedError, *DAMAGE) as error:
        said = error.args[0] if error.args else error
        reason = said.decode("ascii", "replace") if isinstance(said, bytes) else said
        raise UserError(
            f"{name}: a raw file of a camera that LibRaw cannot read ({reason}); copy it anew, or"
            " develop it into a 16-bit TIFF"
        ) from None


def _exif_of_preview(raw: Any) -> bytes | None:
    """Return the EXIF data of the largest JPEG in a raw file, None if there is none."""
    import rawpy

    with suppress(rawpy.LibRawError):
        preview = raw.extract_thumb()
        if preview.format == rawpy.ThumbFormat.JPEG:
            for marker, content in jpeg_segments(io.BytesIO(preview.data)):
                if marker == 0xE1 and content.startswith(EXIF):
                    return content[len(EXIF) :]
    return None
