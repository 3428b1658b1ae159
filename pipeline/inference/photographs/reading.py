"""Read a photograph of 8 or 16 bits as upright rows, without a copy of the whole as numbers.

Pillow keeps a decoded photograph in 4 bytes a pixel (grey in 1 or 2). It cannot hold colours of
16 bits: it drops the lower byte of each. So such a file is decoded twice, for the upper and the
lower bytes, and takes 8 bytes a pixel.
"""

import logging
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pipeline.images.files import EXIF_ORIENTATION, SIDEWAYS, damage_as_user_error, open_image
from pipeline.inference.photographs.exif import Density, Exif, read_exif
from pipeline.runtime.errors import UserError

# what Pillow logs of damaged files is raised as well, and told in one line
logging.getLogger("PIL").addHandler(logging.NullHandler())

Values = NDArray[np.uint8] | NDArray[np.uint16]

UPRIGHT = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}
"""What turns a stored image of an EXIF orientation upright (JEITA CP-3451)."""
FROM_THE_END = (3, 4, 7, 8)
"""EXIF orientations whose first upright row is the last stored row or column."""

PLAIN = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "YCbCr": "RGB"}
"""Modes of Pillow that are read, and as what; palettes beside them."""
DEEP = re.compile(r"(L|LA|RGB|RGBA|I);16([BLN])?")
"""Pillow's names for how 16-bit values lie in a file."""
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0


@dataclass(frozen=True)
class Form:
    """What a file says beside its pixels; a restored file says the same.

    ``channels``: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. ``exif`` has no orientation:
    rows are upright. ``density`` is None where the file says nothing of it.
    """

    height: int
    width: int
    channels: int
    bits: int
    icc_profile: bytes | None
    exif: Exif | None
    density: Density | None

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels in (2, 4)


@dataclass(frozen=True)
class Picture:
    """A decoded photograph."""

    form: Form
    layers: tuple[PillowImage.Image, ...]  # one, or those of the upper and the lower bytes
    orientation: int
    interleaved: bool = False  # upper and lower bytes side by side in one layer

    def rows(self, rows: slice) -> Values:
        """Return upright rows, (rows, width, channels) of 8 or 16 bits."""
        parts = [self._rows(layer, rows) for layer in self.layers]
        if self.interleaved:
            joined: Values = parts[0].view(">u2").astype(np.uint16)
        elif len(parts) == 2:
            joined = parts[0].astype(np.uint16) << 8 | parts[1]
        else:
            joined = parts[0]
        return joined

    def _rows(self, layer: PillowImage.Image, rows: slice) -> Any:
        width, height = layer.size
        along = width if self.orientation in SIDEWAYS else height
        first, last = rows.start, rows.stop
        if self.orientation in FROM_THE_END:
            first, last = along - rows.stop, along - rows.start
        sideways = self.orientation in SIDEWAYS
        box = (first, 0, last, height) if sideways else (0, first, width, last)
        part = layer.crop(box)
        if self.orientation in UPRIGHT:
            part = part.transpose(UPRIGHT[self.orientation])
        values = np.asarray(part)
        if values.dtype.itemsize == 2:
            values = values.astype(np.uint16)  # in this machine's order of bytes
        return values.reshape(*values.shape[:2], -1)


def read_picture(path: Path, name: str, largest_pixels: int) -> Picture:
    """Decode a photograph of 8 or 16 bits, with or without alpha.

    Of a phone's JPEG that holds further pictures the first is meant.

    Raises:
        UserError: not an image, damaged, too large, several pages, CMYK or another kind of colour.
        OSError: the file cannot be opened.
    """
    # before it is opened: a pipe that nobody writes to would never answer, a device never end
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{name}: not a regular file; expected an image")
    with path.open("rb") as file, _pixels_allowed(largest_pixels):
        image = open_image(file, name)
        _require_plain(image, name, largest_pixels)
        with damage_as_user_error(name):
            # Pillow turns a TIFF while loading, and forgets it
            turned_by_pillow = getattr(image, "tag_v2", {}).get(EXIF_ORIENTATION)
            # first of all: asked for its EXIF data, a PNG is decoded, and no longer tells its bits
            layers, channels, bits = _layers(image, path, name)
            orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
            turned = (turned_by_pillow if image.format == "TIFF" else orientation) in SIDEWAYS
            exif, density = read_exif(image, turned)
            icc_profile = image.info.get("icc_profile") or None
        orientation = orientation if image.format != "TIFF" and orientation in UPRIGHT else 1
    width, height = layers[0].size
    if orientation in SIDEWAYS:
        width, height = height, width
    form = Form(height, width, channels, bits, icc_profile, exif, density)
    return Picture(form, layers, orientation, interleaved=(bits == 16 and channels == 2))


@contextmanager
def _pixels_allowed(largest: int) -> Iterator[None]:
    """Have Pillow accept so many pixels; its own limit is 89 megapixels, and a warning."""
    before = PillowImage.MAX_IMAGE_PIXELS
    PillowImage.MAX_IMAGE_PIXELS = largest
    try:
        with warnings.catch_warnings():
            # of sizes, which are checked here, and of EXIF data, which touches no pixel
            warnings.simplefilter("ignore")
            yield
    finally:
        PillowImage.MAX_IMAGE_PIXELS = before


def _require_plain(image: PillowImage.Image, name: str, largest: int) -> None:
    pixels = image.width * image.height
    if pixels > largest:
        raise UserError(
            f"{name}: {image.width} x {image.height} = {pixels / 1e6:,.0f} megapixels, expected at"
            f" most {largest / 1e6:,.0f}; --max-megapixels allows more"
        )
    if image.mode == "CMYK":
        raise UserError(f"{name}: CMYK colours; save it as RGB")
    with damage_as_user_error(name):
        frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UserError(f"{name}: holds {frames} pictures; save each as a file of its own")


def _layers(
    image: PillowImage.Image, path: Path, name: str
) -> tuple[tuple[PillowImage.Image, ...], int, int]:
    """Return the decoded layers, the number of channels and the bits of each."""
    tiles = getattr(image, "tile", ())
    deep = [DEEP.fullmatch(_raw_mode(tile)) for tile in tiles]
    if any(";16" in _raw_mode(tile) for tile in tiles):
        # of a grey TIFF in which 0 is white, Pillow turns 8 bits round, but not 16
        inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
        if not all(deep) or "transparency" in image.info or inverted:
            raise UserError(f"{name}: 16-bit values of an unusual kind; save it as a plain PNG")
        kind, order = deep[0].groups()  # type: ignore[union-attr]
        if kind in ("I", "L"):
            return (_loaded(image),), 1, 16
        if kind == "LA":  # Pillow unpacks no lower bytes of it: taken as four channels of 8 bits
            image._mode = "RGBA"
            return (_loaded(_with_raw_mode(image, "RGBA")),), 2, 16
        little_endian = order in ("L", "N")  # N: this machine's, see below
        upper, lower = ("L", "B") if little_endian else ("B", "L")
        with path.open("rb") as file:
            again = open_image(file, name)
            low = _loaded(_with_raw_mode(again, f"{kind};16{lower}"))
        high = _loaded(_with_raw_mode(image, f"{kind};16{upper}"))
        return (high, low), len(kind), 16
    wanted = _plain_mode(image, name)
    loaded = _loaded(image)
    loaded = loaded if loaded.mode == wanted else loaded.convert(wanted)
    return (loaded,), len(wanted), 8


def _plain_mode(image: PillowImage.Image, name: str) -> str:
    clear = "transparency" in image.info
    if image.mode in ("P", "PA"):
        return "RGBA" if clear or image.mode == "PA" else "RGB"
    if image.mode not in PLAIN:
        raise UserError(f"{name}: {image.mode} values; expected grey or RGB of 8 or 16 bits")
    mode = PLAIN[image.mode]
    return f"{mode}A" if clear and "A" not in mode else mode


def _loaded(image: PillowImage.Image) -> PillowImage.Image:
    image.load()
    return image


def _raw_mode(tile: Any) -> str:
    arguments = tile.args
    return str(arguments if isinstance(arguments, str) else (arguments or ("",))[0])


def _with_raw_mode(image: PillowImage.Image, raw_mode: str) -> PillowImage.Image:
    """Have a file decoded as if its values lay in another way."""
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *tile.args[1:]))
        for tile in image.tile  # type: ignore[attr-defined]
    ]
    return image
