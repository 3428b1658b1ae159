"""Opening image files that others made: what is no image or damaged is told in one line."""

import contextlib
import struct
from collections.abc import Iterator
from typing import IO

from PIL import Image, UnidentifiedImageError

from pipeline.runtime.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
UNREAD_ENDINGS = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2"),
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf"),
    *(".rw2", ".rwl", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".kdc", ".dcr", ".mrw", ".erf"),
)
"""Photographs that are not read: phones' and newer formats, and the raw files of cameras.

A raw file is told by its ending alone: to Pillow many are TIFFs of their own thumbnail.
"""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow's names of what is read, by content: others start programs (EPS) or open further files."""
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""


def open_image(file: IO[bytes], name: str) -> Image.Image:
    """Return an image of which only the header has been read.

    Raises:
        UserError: not an image, damaged, or of more pixels than Pillow allows.
    """
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise UserError(
            f"{name}: not an image that is read; expected {', '.join(ENDINGS)}"
        ) from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: {error}") from None
    except DAMAGE as error:
        raise UserError(damaged(name, error)) from None


@contextlib.contextmanager
def damage_as_user_error(name: str) -> Iterator[None]:
    """Turn what Pillow raises on damaged content into a UserError."""
    try:
        yield
    except DAMAGE as error:
        raise UserError(damaged(name, error)) from None


DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, struct.error),
    *(EOFError, LookupError, ArithmeticError, AttributeError),
)
"""What Pillow's readers were seen to raise on files with bytes changed at random, and its kin."""


def damaged(name: str, error: Exception) -> str:
    """Return what is said of a damaged image."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{name}: damaged image ({reason}); replace or remove the file"
