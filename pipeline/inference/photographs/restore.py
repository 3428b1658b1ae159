"""Restore one photograph into its file, row by row."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.running import Evaluate
from pipeline.images.pixels import Image, to_uint8
from pipeline.inference.photographs.listing import Order, shown
from pipeline.inference.photographs.reading import Picture, Values, read_picture
from pipeline.inference.photographs.writing import STRIP_ROWS, write_picture
from pipeline.runtime.errors import UserError

RowsRestorer = Callable[[Callable[[slice], Image], tuple[int, int]], Iterator[Image]]
"""Gives restored bands of rows from a reader of rows and (height, width)."""


def load_rows_restorer(model: Path, settings: Evaluate) -> RowsRestorer:
    """Return what restores photographs band by band with a trained model.

    Raises:
        UserError: the file is missing, damaged, or holds other weights than its facts say.
    """
    from pipeline.device import prepare_torch, use_precision
    from pipeline.inference.model import load_network, on_device, restore_rows

    prepare_torch(settings.threads)
    network, precision = on_device(load_network(model)[0]), use_precision(settings.precision)
    return lambda read, size: restore_rows(
        network, read, size, settings.tile, settings.tile_overlap, precision
    )


def restore_photograph(
    order: Order,
    restore_rows: RowsRestorer,
    largest_pixels: int,
    report: Callable[[float], None] = lambda share: None,
) -> None:
    """Restore one photograph into its file, whole or not at all.

    Args:
        order: source, target, format.
        restore_rows: the model.
        largest_pixels: what a photograph may have.
        report: called with the share that is done.

    Raises:
        UserError: the photograph cannot be read, or its format cannot hold the result, or the
            model's values are not finite.
        OSError: a file cannot be read or written.
    """
    picture = read_picture(order.source, shown(order.source), largest_pixels)
    form = picture.form

    def rows() -> Iterator[Values]:
        top = 0
        for band in restore_rows(lambda rows: _colours(picture, rows), (form.height, form.width)):
            # few rows at a time: rounding makes several copies
            for first in range(0, len(band), STRIP_ROWS):
                strip = band[first : first + STRIP_ROWS]
                yield _joined(strip, picture, slice(top, top + len(strip)))
                top += len(strip)
            del band, strip  # before the next is made
            report(top / form.height)

    try:
        write_picture(order.target, order.kind, form, rows())
    except UserError as error:
        raise UserError(f"{shown(order.source)}: {error}") from None


def _colours(picture: Picture, rows: slice) -> Image:
    """Return rows as RGB in [0, 1], without alpha; of grey, three equal channels."""
    values = picture.rows(rows)
    if picture.form.has_alpha:
        values = values[..., :-1]
    image: Image = values.astype(np.float32)
    image /= 2**picture.form.bits - 1  # in place: these rows are most of the memory
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _joined(band: Image, picture: Picture, rows: slice) -> Values:
    """Return restored rows as the file's own values: grey if it was, with its alpha as it is."""
    if not np.isfinite(band).all():
        raise UserError("the model gives values that are not finite")
    form = picture.form
    colours: NDArray[Any] = band.mean(axis=2, keepdims=True) if form.channels < 3 else band
    values: Values = to_uint8(colours) if form.bits == 8 else _to_uint16(colours)
    if form.has_alpha:
        values = np.concatenate([values, picture.rows(rows)[..., -1:]], axis=2)
    return values


def _to_uint16(image: Image) -> NDArray[np.uint16]:
    values: NDArray[np.uint16] = np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16)
    return values
