"""Pixels of image files as upright rows, whole or as they are asked for.

PNG and TIFF are read by OpenImageIO: every depth and layout as it is in the file, by the row. JPEG,
WebP, BMP, HEIF and palettes of a TIFF have 8 bits, and Pillow reads them: unlike OpenImageIO it
reports a JPEG that ends early.
"""

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageFile

from pipeline.images.files import SIDEWAYS, damaged
from pipeline.images.reading.containers import DAMAGE, jpeg_without_metadata, pillow_format
from pipeline.images.reading.folders import is_unicode
from pipeline.images.reading.header import Header
from pipeline.images.reading.raw import develop
from pipeline.images.reading.tiff import COLOUR_MAP
from pipeline.images.reading.window import Values, Window
from pipeline.runtime.errors import UserError
from pipeline.runtime.streaming import in_background

KINDS: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.float32}
"""From the bits of a value."""
BAND_ROWS = 64
WAITING_BANDS = 2

PillowImage.MAX_IMAGE_PIXELS = None  # ``require_one_picture`` checks sizes before

UPRIGHT: dict[int, Callable[[Values], Values]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}
"""What turns a stored image of an EXIF orientation upright (JEITA CP-3451)."""
UNTURNED = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_90,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_270,
}
"""Undoes what Pillow does to a TIFF of an orientation while it is decoded."""
FROM_THE_END = (3, 4, 7, 8)
"""EXIF orientations whose first upright row is the last stored row or column."""
IN_ORDER = (1, 2)
"""EXIF orientations whose rows can be read as they are stored."""


class Stored(Protocol):
    """Pixels in the order of the file."""

    def part(self, rows: slice, columns: slice) -> Values:
        """Return a rectangle of them."""
        ...


class Upright:
    """Rows of an image, turned as its file says."""

    def __init__(self, header: Header, stored: Stored) -> None:
        self.header, self.stored = header, stored
        self.height, self.width = header.upright

    def rows(self, rows: slice) -> Values:
        """Return upright rows, none that were forgotten."""
        orientation, height, width = (
            self.header.orientation, self.header.height, self.header.width
        )  # fmt: skip
        first, last = rows.start, rows.stop
        if orientation in FROM_THE_END:
            first, last = self.height - rows.stop, self.height - rows.start
        if orientation in SIDEWAYS:
            part = self.stored.part(slice(0, height), slice(first, last))
        else:
            part = self.stored.part(slice(first, last), slice(0, width))
        return UPRIGHT[orientation](part)

    def forget(self, before: int) -> None:
        """Say that no rows before this one will be asked for again."""
        if isinstance(self.stored, _Scanlines):
            self.stored.forget(before)


def open_rows(path: Path, header: Header, name: str, lenient: bool = False) -> Upright:
    """Return a reader of a file's rows.

    A PNG or TIFF whose rows are in order is read as they are asked for; any other is decoded now,
    and a raw file is developed.

    Args:
        path: of the file.
        header: what ``read_header`` found in it.
        name: what to call it in errors.
        lenient: what cannot be decoded is left black and noted in ``header.notes``; but not of a
            raw file.

    Raises:
        UserError: damaged, now or when its rows are read.
    """
    if header.kind == "raw":
        stored = _Array(develop(path, header, name))
        return Upright(header, stored)
    if _by_pillow(header):
        return Upright(header, _PillowImage(path.read_bytes(), header, name, lenient))
    rows = _Scanlines(path, header, name, lenient)
    if header.orientation in IN_ORDER and not rows.planar:
        return Upright(header, rows)
    whole = np.empty((header.height, header.width, header.channels), KINDS[header.bits])
    for top in range(0, header.height, rows.step):
        band = rows.part(slice(top, min(top + rows.step, header.height)), slice(0, header.width))
        whole[top : top + len(band)] = band
        rows.forget(top + len(band))
    return Upright(header, _Array(whole))


def decode_all(content: bytes, header: Header, name: str) -> Values:
    """Return all upright pixels of a file's bytes, (height, width, channels).

    Raises:
        UserError: damaged.
    """
    if _by_pillow(header):
        rows = Upright(header, _PillowImage(content, header, name, False))
        return rows.rows(slice(0, rows.height))
    # OpenImageIO opens files only
    with tempfile.NamedTemporaryFile(suffix=f".{header.kind}") as file:
        file.write(content)
        file.flush()
        rows = open_rows(Path(file.name), header, name)
        return rows.rows(slice(0, rows.height))


def _by_pillow(header: Header) -> bool:
    return header.kind not in ("png", "tiff", "raw") or (header.palette and header.kind == "tiff")


class _Array:
    def __init__(self, values: Values) -> None:
        self.values = values

    def part(self, rows: slice, columns: slice) -> Values:
        return self.values[rows, columns]


class _PillowImage:
    """An image that Pillow has decoded, which takes 4 bytes a pixel (grey 1)."""

    def __init__(self, content: bytes, header: Header, name: str, lenient: bool) -> None:
        if header.kind == "jpeg":
            # so that nothing else in it can keep its pixels from being read
            content = jpeg_without_metadata(content)
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[header.channels]
        try:
            try:
                image = _loaded(content, header)
            except DAMAGE:
                if not lenient:
                    raise
                image = _loaded(content, header, lenient=True)
                header.notes.append("pixels that are damaged or missing")
            if header.kind == "tiff" and header.orientation != 1:
                image = image.transpose(UNTURNED[header.orientation])
            self.image = image if image.mode == mode else image.convert(mode)
        except DAMAGE as error:
            raise UserError(damaged(name, error)) from None
        if self.image.size != (header.width, header.height):
            raise UserError(damaged(name, "two sizes in one file"))

    def part(self, rows: slice, columns: slice) -> Values:
        box = (columns.start, rows.start, columns.stop, rows.stop)
        values = np.asarray(self.image.crop(box))
        return values.reshape(*values.shape[:2], -1)


def _loaded(content: bytes, header: Header, lenient: bool = False) -> PillowImage.Image:
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, lenient
    try:
        image = PillowImage.open(io.BytesIO(content), formats=[pillow_format(header.kind)])
        image.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    if header.narrow_palette and header.directory is not None:
        colours = np.array(header.directory[COLOUR_MAP], np.uint8).reshape(3, -1)
        image.putpalette(colours.T.tobytes())
    return image


class _Scanlines:
    """Rows of a PNG or TIFF, read from the top."""

    def __init__(self, path: Path, header: Header, name: str, lenient: bool) -> None:
        import OpenImageIO as oiio

        self.header, self.name, self.lenient = header, name, lenient
        wanted = oiio.ImageSpec()
        wanted.attribute("oiio:UnassociatedAlpha", 1)  # colours as they are in the file
        wanted.attribute("oiio:emulate_mipmap", 0)
        given = str(path)
        if not is_unicode(given):  # OpenImageIO takes no such name
            self.file = path.open("rb")
            given = f"/dev/fd/{self.file.fileno()}"
        opened = oiio.ImageInput.open(given, wanted)
        if opened is None:
            raise UserError(damaged(name, oiio.geterror()))
        self.input = opened
        if not self.input.seek_subimage(header.subimage, 0):
            raise UserError(damaged(name, self.input.geterror()))
        spec = self.input.spec()
        found = spec.height, spec.width, str(spec.format)
        kind = {8: "uint8", 16: "uint16", 32: "float"}[header.bits]
        if header.kind == "png" and spec.nchannels == header.channels - 1:
            header.channels -= 1  # a damaged tRNS
        if found != (header.height, header.width, kind) or spec.nchannels < header.channels:
            raise UserError(damaged(name, "its header says two things"))
        self.format, self.tile = spec.format, spec.tile_height
        self.planar = header.kind == "tiff" and spec.getattribute("planarconfig") == "separate"
        self.step = header.height if self.planar else self.tile or BAND_ROWS
        self.next = 0
        # decoding goes on while the network works
        self.window = Window(in_background(self._bands(), WAITING_BANDS))

    def part(self, rows: slice, columns: slice) -> Values:
        return self.window.rows(rows)[:, columns]

    def forget(self, before: int) -> None:
        self.window.forget(before)

    def _bands(self) -> Iterator[Values]:
        while self.next < self.header.height:
            stop = min(self.next + self.step, self.header.height)
            yield self._read(stop)
            self.next = stop

    def _read(self, stop: int) -> Values:
        width, wanted = self.header.width, self.header.channels
        if self.tile:
            found = self.input.read_tiles(0, width, self.next, stop, 0, 1, 0, wanted, self.format)
        else:
            found = self.input.read_scanlines(self.next, stop, 0, 0, wanted, self.format)
        if found is None and not self.lenient:
            raise UserError(damaged(self.name, self.input.geterror() or "its pixels end early"))
        if found is None:
            self.input.geterror()
            if (note := "pixels that are damaged, black here") not in self.header.notes:
                self.header.notes.append(note)
            return np.zeros((stop - self.next, width, wanted), KINDS[self.header.bits])
        values: Values = np.asarray(found).reshape(stop - self.next, width, wanted)
        if self.header.inverted and self.header.bits == 8:
            values = 255 - values  # OpenImageIO has turned alpha as well, but not of 16 bits
        if self.header.associated:
            values = _unassociated(values)
        if self.header.inverted:
            values[..., 0] = np.iinfo(values.dtype).max - values[..., 0]
        return values


def _unassociated(values: Values) -> Values:
    """Return colours that were multiplied by alpha as they are without it, rounded."""
    alpha = values[..., -1:].astype(np.float64)
    top = 1.0 if values.dtype == np.float32 else float(np.iinfo(values.dtype).max)
    with np.errstate(divide="ignore", invalid="ignore"):
        colours = np.where(alpha > 0, values[..., :-1] / alpha * top, values[..., :-1])
    if values.dtype != np.float32:
        colours = np.rint(np.clip(colours, 0, top))
    return np.concatenate([colours.astype(values.dtype), values[..., -1:]], axis=2)
