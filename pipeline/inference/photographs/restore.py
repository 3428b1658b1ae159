"""Restore one photograph into its file, row by row."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.running import Evaluate
from pipeline.images.pixels import Image, to_uint8
from pipeline.images.reading.window import Window
from pipeline.inference.photographs.colours import SRGB, Colours, colours_of
from pipeline.inference.photographs.listing import Order, shown
from pipeline.inference.photographs.reading import Form, OpenPhotograph, Values, open_photograph
from pipeline.inference.photographs.tiff import STRIP_ROWS
from pipeline.inference.photographs.writing import QUALITY, write_pages, write_picture
from pipeline.runtime.errors import UserError
from pipeline.runtime.streaming import in_background

RowsRestorer = Callable[[Callable[[slice], Image], tuple[int, int]], Iterator[Image]]
"""Gives restored bands of rows from a reader of rows and (height, width)."""
WAITING_STRIPS = 4
"""Of STRIP_ROWS rows each, restored but not yet written."""


@dataclass(frozen=True)
class Handling:
    """How a photograph is taken and given.

    ``strength`` S gives S x restored + (1 - S) x photograph. ``lenient`` takes what is damaged as
    far as it can be decoded. ``replace`` says whether a result that is there may be replaced,
    ``leave`` whether it is taken for done.
    """

    largest_pixels: int
    strength: float = 1.0
    quality: int = QUALITY
    lenient: bool = False
    replace: bool = False
    leave: bool = False


def load_rows_restorer(models: list[Path], settings: Evaluate) -> RowsRestorer:
    """Return what restores photographs band by band with trained models, one after the other.

    Raises:
        UserError: a file is missing, damaged, or holds other weights than its facts say.
    """
    from pipeline.device import prepare_torch, use_precision
    from pipeline.inference.model import load_network, on_device
    from pipeline.inference.tiled import restore_rows

    prepare_torch(settings.threads)
    precision = use_precision(settings.precision)
    networks = [on_device(load_network(model)[0]) for model in models]

    def restore_all(read: Callable[[slice], Image], size: tuple[int, int]) -> Iterator[Image]:
        for network in networks[:-1]:
            bands = restore_rows(
                network, read, size, settings.tile, settings.tile_overlap, precision
            )
            read = _reader(bands)
        return restore_rows(
            networks[-1], read, size, settings.tile, settings.tile_overlap, precision
        )

    return restore_all


def _reader(bands: Iterator[Image]) -> Callable[[slice], Image]:
    """Return what reads what a model gives, for the next; rows before the last ones are freed."""
    # copied, as the bands are overwritten; within the range, as if saved between
    window = Window(np.clip(band, 0, 1) for band in bands)

    def read(rows: slice) -> Image:
        window.forget(rows.start)
        return window.rows(rows)

    return read


def restore_photograph(
    order: Order,
    restore_rows: RowsRestorer,
    handling: Handling,
    report: Callable[[float], None] = lambda share: None,
) -> list[str]:
    """Restore one photograph into its file, whole or not at all, and return what is not kept.

    The file gets the photograph's date and mode.

    Args:
        order: source, target, format.
        restore_rows: the model.
        handling: how.
        report: called with the share that is done.

    Raises:
        UserError: the photograph cannot be read, or its format cannot hold the result, or the
            model's values are not finite.
        FileExistsError: there is a file already, or one in the place of its folder.
        OSError: a file cannot be read or written.
    """
    name = shown(order.source)
    first = _page(order, handling, 0)
    lost: list[str] = []
    pages = _pages(order, first, restore_rows, handling, report, lost)
    exclusive = not handling.replace
    with contextlib.closing(pages):  # type: ignore[type-var]
        try:
            if first.pages > 1:
                write_pages(order.target, pages, first.pages, exclusive)
            else:
                form, strips = next(pages)
                write_picture(order.target, order.kind, form, strips, handling.quality, exclusive)
        except UserError as error:
            text = str(error)
            raise UserError(text if text.startswith(name) else f"{name}: {text}") from None
    status = order.source.stat()
    with contextlib.suppress(PermissionError):  # a file system without modes
        order.target.chmod(status.st_mode & 0o777)
    os.utime(order.target, ns=(status.st_atime_ns, status.st_mtime_ns))
    return list(dict.fromkeys(lost))


def _page(order: Order, handling: Handling, number: int) -> OpenPhotograph:
    page = number if order.kind == "tiff" else None  # no other format holds several
    name = shown(order.source)
    return open_photograph(order.source, name, handling.largest_pixels, handling.lenient, page)


def _pages(
    order: Order,
    first: OpenPhotograph,
    restore_rows: RowsRestorer,
    handling: Handling,
    report: Callable[[float], None],
    lost: list[str],
) -> Iterator[tuple[Form, Iterator[Values]]]:
    """Yield each page and its restored rows; what is not kept of it is added to ``lost``."""
    for number in range(first.pages):
        picture = _page(order, handling, number) if number else first
        colours, note = colours_of(picture.form)
        metadata = picture.form.metadata

        def report_page(share: float, number: int = number) -> None:
            report((number + share) / first.pages)

        strips = _restored(picture, restore_rows, handling.strength, colours, report_page)
        # the network works on while strips are packed
        strips = in_background(strips, WAITING_STRIPS)
        with contextlib.closing(strips):  # type: ignore[type-var]
            try:
                yield picture.form, strips
            finally:  # what is damaged is known when it was read
                lost += [*picture.notes, *([note] if note else [])]
                lost += metadata.without(order.kind)[1]
                if number and metadata.exif and metadata.exif.pointers():
                    lost.append("EXIF data of pages behind the first")


def _restored(
    picture: OpenPhotograph,
    restore_rows: RowsRestorer,
    strength: float,
    colours: Colours,
    report: Callable[[float], None],
) -> Iterator[Values]:
    """Yield the restored rows as the file's own values, in strips."""
    form = picture.form
    offset, scale = picture.value_range

    def given(rows: slice) -> Image:
        return rgb_of(picture, rows, offset, scale)

    def read(rows: slice) -> Image:
        return colours.to_srgb(given(rows))

    top = 0
    for band in restore_rows(read, (form.height, form.width)):
        # few rows at a time: rounding makes several copies
        for first in range(0, len(band), STRIP_ROWS):
            strip = band[first : first + STRIP_ROWS]
            if not np.isfinite(strip).all():
                raise UserError("the model gives values that are not finite")
            rows = slice(top, top + len(strip))
            if strength != 1:
                strip = strength * strip + (1 - strength) * read(rows)
            values: NDArray[Any] = strip
            if colours is not SRGB:
                # as a difference: what rounding does on the way there and back is in both
                back = colours.from_srgb(strip) - colours.from_srgb(read(rows))
                values = given(rows) + back
            if form.channels < 3:
                # in float64: of three equal numbers float32 would give others
                values = values.mean(axis=2, keepdims=True, dtype=np.float64)
            values = TO_BITS[form.bits](values if form.bits < 32 else values * scale + offset)
            if form.has_alpha:
                values = np.concatenate([values, picture.rows(rows)[..., -1:]], axis=2)
            yield values
            top += len(strip)
            picture.upright.forget(top)
        del band, strip  # before the next is made
        report(top / form.height)


def rgb_of(picture: OpenPhotograph, rows: slice, offset: float, scale: float) -> Image:
    """Return rows as RGB in [0, 1], without alpha; of grey, three equal channels."""
    values = picture.rows(rows)
    if picture.form.has_alpha:
        values = values[..., :-1]
    image: Image = values.astype(np.float32)
    if picture.form.bits < 32:
        image /= 2**picture.form.bits - 1  # in place: these rows are most of the memory
    elif (offset, scale) != (0, 1):
        image = (image - np.float32(offset)) / np.float32(scale)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _to_uint16(image: Image) -> NDArray[np.uint16]:
    values: NDArray[np.uint16] = np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16)
    return values


TO_BITS: dict[int, Callable[[NDArray[Any]], Values]] = {
    8: to_uint8,
    16: _to_uint16,
    32: lambda image: image.astype(np.float32),
}
"""From the bits of a value to what gives such values of numbers in [0, 1]."""
