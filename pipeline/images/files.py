"""Names of image files, what a file is by its first bytes, and how a damaged one is reported."""

from typing import Literal

from pipeline.runtime.errors import UserError

Kind = Literal["png", "jpeg", "tiff", "webp", "bmp"]
"""What is read without further packages."""

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".webp"),
)
RAW_ENDINGS = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf"),
    *(".rw2", ".rwl", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".kdc", ".dcr", ".mrw", ".erf"),
)
"""Raw files of cameras, known by their ending alone: many are TIFFs of their own thumbnail."""
HEIF_ENDINGS = (".heic", ".heif", ".hif", ".avif")
UNREAD_ENDINGS = (*HEIF_ENDINGS, ".jxl", ".jp2", *RAW_ENDINGS)
"""Photographs that are not read without further packages."""

EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""

BEGINNINGS: dict[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"BM": "bmp",
    b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop file",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"FUJIFILMCCD-RAW": "camera raw", b"FOVb": "camera raw", b"IIU\0": "camera raw",
    b"IIRO": "camera raw", b"IIRS": "camera raw", b"MMOR": "camera raw",
    b"gimp xcf": "GIMP file",
    b"SIMPLE  =": "FITS",
    b"DDS ": "DDS",
    b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip archive",
    b"version https://git-lfs": "Git LFS pointer (its content was not fetched: git lfs pull)",
}  # fmt: skip
"""First bytes of a file, and what they say."""
BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC",
    b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF", b"crx ": "camera raw",
}  # fmt: skip
"""Brands of files that begin with an ISO box 'ftyp' (ISO 14496-12); all others are videos."""
FIRST_BYTES = 64


def kind_of(first: bytes, name: str) -> Kind:
    """Return what a file is by its first bytes, whatever its ending says.

    Args:
        first: at least FIRST_BYTES of the file, fewer if it is shorter.
        name: what to call the file in an error.

    Raises:
        UserError: something that is not read; says what it is.
    """
    found = _found(first)
    if found in ("png", "jpeg", "tiff", "webp", "bmp"):
        return found  # type: ignore[return-value]
    if found is None:
        raise UserError(f"{name}: not an image; expected PNG, JPEG, TIFF, BMP or WebP")
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    if "file" in found and "empty" in found:
        raise UserError(f"{name}: empty file; replace or remove it")
    under = f" under the ending {ending}" if ending in ENDINGS else " is not read"
    raise UserError(f"{name}: {found}{under}; save it as TIFF, PNG or JPEG")


def _found(first: bytes) -> str | None:
    if not first:
        return "empty file"
    if not first.strip(b"\0"):
        return "nothing but zeros"
    if first[4:8] == b"ftyp":
        return BRANDS.get(first[8:12], "video")
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return "webp"
    if first[:4] == b"II*\0" and first[8:10] == b"CR":
        return "camera raw"
    for beginning, found in BEGINNINGS.items():
        if first.startswith(beginning):
            return found
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "web page"
    return "SVG" if text.startswith((b"<svg", b"<?xml")) else None


def damaged(name: str, reason: object) -> str:
    """Return what is said of a damaged image."""
    text = " ".join(str(reason).split())[:200] or type(reason).__name__
    return f"{name}: damaged image ({text}); replace or remove the file"
