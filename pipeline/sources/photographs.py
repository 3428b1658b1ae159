"""What a source yields, and how image files become 8-bit RGB arrays."""

import io
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from pipeline.config.data import Split
from pipeline.errors import UserError
from pipeline.files import replacing
from pipeline.image_files import EXIF_ORIENTATION, SIDEWAYS, open_image, told_as_damage

ARCHIVE = "photographs.zip"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold: the same bytes every day


@dataclass(frozen=True)
class ImageFile:
    """An encoded image inside an archive."""

    archive: Path
    name: str

    def size(self) -> tuple[int, int]:
        """Return (height, width) as shown, from the header alone."""
        with open_archive(self.archive) as archive, archive.open(self.name) as file:
            image = open_image(file, self.name)
            width, height = image.size
            with told_as_damage(self.name):
                orientation = image.getexif().get(EXIF_ORIENTATION)
        # Pillow has turned the size of a TIFF already
        sideways = orientation in SIDEWAYS and image.format != "TIFF"
        return (width, height) if sideways else (height, width)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the decoded image (height, width, 3) uint8 RGB."""
        with open_archive(self.archive) as archive:
            return decode(archive.read(self.name), self.name)


@dataclass(frozen=True)
class Photograph:
    """One image or pair of a source. ``degraded`` or ``clean`` is None where there is none."""

    id: str
    split: Split
    scene: str
    data_set: str
    degraded: ImageFile | None
    clean: ImageFile | None


def decode(encoded: bytes, name: str) -> NDArray[np.uint8]:
    """Return an encoded image as (height, width, 3) uint8 RGB, turned as its EXIF data says.

    Grey and palette images become RGB; an opaque alpha channel is dropped.

    Raises:
        UserError: not an image, truncated, more than 8 bits a channel, CMYK, or transparent.
    """
    image = open_image(io.BytesIO(encoded), name)
    # Pillow drops the lower 8 bits of 16-bit colours silently, and forgets the tiles on loading
    deep = any(re.search(r";16[BLN]", str(tile.args)) for tile in getattr(image, "tile", ()))
    with told_as_damage(name):
        image.load()
        upright = ImageOps.exif_transpose(image)
    if deep or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise UserError(f"{name}: more than 8 bits a channel ({image.mode}); save it with 8 bits")
    if image.mode == "CMYK":
        raise UserError(f"{name}: CMYK colours; save it as RGB")
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        if np.asarray(upright.getchannel("A")).min() < 255:
            raise UserError(f"{name}: transparent pixels have no colour; save it without alpha")
    return np.asarray(upright.convert("RGB"))


def write_archive(path: Path, entries: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
    """Write files into one uncompressed zip, sorted by name and undated: same files, same bytes."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, read in sorted(entries):
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), read())


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open an archive for reading.

    Raises:
        UserError: the archive is missing or damaged.
    """
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; 'dvc repro' or 'dvc checkout' makes it") from None
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run 'dvc repro'") from None
