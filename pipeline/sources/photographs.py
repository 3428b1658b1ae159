"""What a source yields, and how image files become 8-bit RGB arrays."""

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.config.sources import Split
from pipeline.images.files import (
    ENDINGS,
    EXIF_ORIENTATION,
    SIDEWAYS,
    damage_as_user_error,
    damaged,
    open_image,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.streaming import Room
from pipeline.sources.archives.reading import archives_in, open_archive

ARCHIVE = "photographs.zip"
_PNG_MARKS = (b"eXIf", b"exif", b"XML:com.adobe.xmp")
"""A PNG without any of these has no orientation."""

DECODING = Room(2**30)
"""Memory of the images that threads decode at a time, some of them of 250 megapixels."""
DECODED_BYTES_A_PIXEL = 8
"""Pillow's own 4, and 4 of its turned copy."""

Image.MAX_IMAGE_PIXELS = 125_000_000
"""Pillow warns of more pixels than this and refuses twice as many."""


class Picture(Protocol):
    """An image somewhere in an archive, read when it is asked for."""

    @property
    def name(self) -> str:
        """What to call it in messages and tables."""
        ...

    def size(self) -> tuple[int, int]:
        """Return (height, width) as shown, without decoding it."""
        ...

    def pixels(self) -> NDArray[np.uint8]:
        """Return the decoded image (height, width, 3) uint8 RGB."""
        ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An encoded image inside an archive."""

    archive: Path
    name: str

    def size(self) -> tuple[int, int]:
        """Return (height, width) as shown, without decoding it."""
        content = self.content()
        with self._naming_the_archive():
            image = open_image(io.BytesIO(content), self.name)
        width, height = image.size
        orientation = None
        # for a PNG Pillow decodes all of it, to look for EXIF data behind the pixels
        if image.format != "PNG" or any(mark in content for mark in _PNG_MARKS):
            with self._naming_the_archive(), damage_as_user_error(self.name):
                orientation = image.getexif().get(EXIF_ORIENTATION)
        # Pillow has turned the size of a TIFF already
        sideways = orientation in SIDEWAYS and image.format != "TIFF"
        return (width, height) if sideways else (height, width)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the decoded image (height, width, 3) uint8 RGB."""
        content = self.content()
        with self._naming_the_archive():
            return decode(content, self.name)

    def content(self) -> bytes:
        """Return the file as it is."""
        archive = open_archive(self.archive)
        with self._naming_the_archive():
            try:
                with damage_as_user_error(self.name):
                    return archive.read(self.name)
            except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
                raise UserError(damaged(self.name, error)) from None

    @contextlib.contextmanager
    def _naming_the_archive(self) -> Iterator[None]:
        """Say with an error where the file lies: a user sees archives, of many gigabytes."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{error} (in {self.archive.name})") from None


@dataclass(frozen=True, slots=True)
class Photograph:
    """One image or pair of a source. ``degraded`` or ``clean`` is None where there is none.

    ``truth`` is the clean partner of an unlabeled real photograph, which only an upper bound sees.
    """

    id: str
    split: Split
    scene: str
    data_set: str
    degraded: Picture | None
    clean: Picture | None
    truth: Picture | None = None


def skippable(source: str) -> str:
    """Return what is said with the error of a training image."""
    return f"sources.{source}.skip_unreadable=true leaves it out of training"


def files_in(folder: Path) -> list[ImageFile]:
    """Return every file of the archives in a folder, without hidden ones and those of macOS."""
    return [
        ImageFile(archive, name)
        for archive in archives_in(folder)
        for name in open_archive(archive).namelist()
        if not name.endswith("/") and not _is_hidden(name)
    ]


def images_in(folder: Path) -> list[ImageFile]:
    """Return the images among ``files_in``."""
    return [file for file in files_in(folder) if file.name.lower().endswith(ENDINGS)]


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[-1].startswith(".") or "__MACOSX" in parts


def decode(encoded: bytes, name: str) -> NDArray[np.uint8]:
    """Return an encoded image as (height, width, 3) uint8 RGB, turned as its EXIF data says.

    Grey and palette images become RGB; an opaque alpha channel is dropped.

    Raises:
        UserError: not an image, truncated, more than 8 bits a channel, CMYK, or transparent.
    """
    image = open_image(io.BytesIO(encoded), name)
    with DECODING.taken(image.width * image.height * DECODED_BYTES_A_PIXEL):
        return _decoded(image, name)


def _decoded(image: Image.Image, name: str) -> NDArray[np.uint8]:
    # Pillow drops the lower 8 bits of 16-bit colours silently, and forgets the tiles on loading
    deep = any(re.search(r";16[BLN]", str(tile.args)) for tile in getattr(image, "tile", ()))
    with damage_as_user_error(name):
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    if deep or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise UserError(f"{name}: more than 8 bits a channel ({image.mode}); save it with 8 bits")
    if image.mode == "CMYK":
        raise UserError(f"{name}: CMYK colours; save it as RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise UserError(f"{name}: transparent pixels have no colour; save it without alpha")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
