"""What a source yields, and how image files become 8-bit RGB arrays."""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.config.sources import Split
from pipeline.images.files import ENDINGS, damaged
from pipeline.images.reading.containers import DAMAGE
from pipeline.images.reading.decoding import decode_all
from pipeline.images.reading.folders import is_left_out
from pipeline.images.reading.formats import read_header
from pipeline.images.reading.header import require_one_picture
from pipeline.runtime.errors import UserError
from pipeline.runtime.streaming import Room
from pipeline.sources.archives.reading import archives_in, open_archive

ARCHIVE = "photographs.zip"
DECODING = Room(2**30)
"""Memory of the images that threads decode at a time, some of them of 250 megapixels."""
DECODED_BYTES_A_PIXEL = 8
"""Up to 4 as decoded, and as many of a copy that is turned or in RGB."""
LARGEST_PIXELS = 250_000_000
"""A header may claim any size; phones make 200 megapixels."""


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
            header = read_header(io.BytesIO(content), self.name)
            require_one_picture(header, self.name, LARGEST_PIXELS)
        return header.upright

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
                return archive.read(self.name)
            except (zipfile.BadZipFile, zlib.error, NotImplementedError, *DAMAGE) as error:
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
        if not name.endswith("/") and not _is_hidden(PurePosixPath(name))
    ]


def images_in(folder: Path) -> list[ImageFile]:
    """Return the images among ``files_in``."""
    return [file for file in files_in(folder) if file.name.lower().endswith(ENDINGS)]


def _is_hidden(name: PurePosixPath) -> bool:
    return name.name.startswith(".") or any(map(is_left_out, name.parts[:-1]))


def decode(encoded: bytes, name: str) -> NDArray[np.uint8]:
    """Return an encoded image as (height, width, 3) uint8 RGB, turned as its EXIF data says.

    Grey and palette images become RGB; an opaque alpha channel is dropped.

    Raises:
        UserError: not an image, truncated, raw, more than 8 bits a channel, CMYK, several pictures,
            too large, or transparent.
    """
    header = read_header(io.BytesIO(encoded), name)
    require_one_picture(header, name, LARGEST_PIXELS)
    if header.kind == "raw":
        raise UserError(f"{name}: a raw file of a camera; develop it into a PNG or TIFF of 8 bits")
    if header.bits > 8:
        kind = "16-bit" if header.bits == 16 else "float32"
        raise UserError(f"{name}: more than 8 bits a channel ({kind}); save it with 8 bits")
    with DECODING.taken(header.height * header.width * DECODED_BYTES_A_PIXEL):
        values = decode_all(encoded, header, name)
    if header.channels in (2, 4):
        if values[..., -1].min() < 255:
            raise UserError(f"{name}: transparent pixels have no colour; save it without alpha")
        values = values[..., :-1]
    pixels: NDArray[np.uint8] = np.ascontiguousarray(
        values if values.shape[2] == 3 else np.repeat(values, 3, axis=2)
    )
    return pixels
