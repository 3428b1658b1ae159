"""Read a photograph as upright rows, with all that travels with it."""

import math
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.images.reading.decoding import Upright, open_rows
from pipeline.images.reading.formats import read_header
from pipeline.images.reading.header import require_one_picture
from pipeline.images.reading.window import Values
from pipeline.inference.photographs.metadata import Metadata, read_metadata
from pipeline.runtime.errors import UserError

__all__ = ["Form", "OpenPhotograph", "Values", "open_photograph"]


@dataclass(frozen=True)
class Form:
    """What a restored file has in common with its photograph.

    ``channels``: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. ``bits``: 8, 16, or 32 for
    float32. Rows are upright.
    """

    height: int
    width: int
    channels: int
    bits: int
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels in (2, 4)


@dataclass(frozen=True)
class OpenPhotograph:
    """A photograph whose rows can be read from the top. ``notes``: what is not kept of it."""

    form: Form
    upright: Upright
    notes: list[str]
    value_range: tuple[float, float] = (0.0, 1.0)  # of float32: what is black, and white less black
    pages: int = 1  # of its file

    def rows(self, rows: slice) -> Values:
        """Return upright rows, (rows, width, channels); see ``Upright.rows``."""
        return self.upright.rows(rows)


def open_photograph(
    path: Path, name: str, largest_pixels: int, lenient: bool = False, page: int | None = None
) -> OpenPhotograph:
    """Return a photograph of 8 or 16 bits or float32, with or without alpha.

    Of a phone's JPEG that holds further pictures the first is meant.

    Args:
        path: of the file.
        name: what to call it in errors.
        largest_pixels: what it may have.
        lenient: leave black what cannot be decoded, and note it.
        page: of a TIFF of several; without one a file of several is refused.

    Raises:
        UserError: not an image, damaged, too large, several pages, CMYK or another kind of colour.
        OSError: the file cannot be opened.
    """
    # before it is opened: a pipe that nobody writes to would never answer, a device never end
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{name}: not a regular file; expected an image")
    with path.open("rb") as file:
        header = read_header(file, name, page or 0)
    pages = header.pages
    if page is not None and header.separate:
        header.pages = 1
    require_one_picture(header, name, largest_pixels, "; --max-megapixels allows more")
    metadata = read_metadata(path, header)
    upright = open_rows(path, header, name, lenient)
    form = Form(upright.height, upright.width, header.channels, header.bits, metadata)
    if form.bits == 32:
        return OpenPhotograph(form, upright, header.notes, _value_range(upright, name), pages)
    return OpenPhotograph(form, upright, header.notes, pages=pages)


def _value_range(upright: Upright, name: str) -> tuple[float, float]:
    """Return offset and scale that bring float32 values into [0, 1]: none if they lie there.

    Raises:
        UserError: a value is not finite.
    """
    values = upright.rows(slice(0, upright.height))
    values = values[..., :-1] if upright.header.channels in (2, 4) else values
    lowest, highest = float(values.min()), float(values.max())
    if not math.isfinite(highest - lowest):
        raise UserError(f"{name}: values that are not finite; expected float32 numbers")
    if (lowest >= 0 and highest <= 1) or lowest == highest:
        return 0.0, 1.0
    return lowest, highest - lowest
