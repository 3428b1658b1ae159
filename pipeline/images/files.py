"""Names of image files, what a file is by its first bytes, and how a damaged one is reported."""

import codecs
import importlib.util
import re
from functools import cache
from typing import Literal

from pipeline.runtime.errors import UserError

Kind = Literal["png", "jpeg", "tiff", "webp", "bmp", "heif", "raw"]
"""What is read; HEIF (a phone's HEIC) and raw with the optional packages of ``[photos]``."""

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".webp"),
)
RAW_ENDINGS = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf"),
    *(".rw2", ".rwl", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".kdc", ".dcr", ".mrw", ".erf"),
    *(".mef", ".mos", ".fff"),
)
HEIF_ENDINGS = (".heic", ".heif", ".hif")
UNREAD_ENDINGS = (*HEIF_ENDINGS, ".avif", ".jxl", ".jp2", *RAW_ENDINGS)
"""Photographs that are not read without further packages."""

EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""

CAMERA_RAW = "camera raw"
BEGINNINGS: dict[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "png", b"\x89PNG": "PNG that was copied as text",
    b"\xff\xd8\xff": "jpeg",
    b"BM": "bmp",
    b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff",
    b"GIF8": "GIF", b"\0\0\1\0": "icon", b"#?R": "Radiance HDR", b"qoif": "QOI",
    b"FLIF": "FLIF", b"farbfeld": "farbfeld", b"AT&TFORM": "DjVu", b"BPG\xfb": "BPG",
    b"II\xbc": "JPEG XR", b"\x8aMNG": "MNG", b"\x8bJNG": "JNG",
    b"P1": "PBM", b"P2": "PGM", b"P3": "PPM", b"P4": "PBM", b"P5": "PGM", b"P6": "PPM",
    b"P7": "PAM", b"PF": "PFM", b"Pf": "PFM",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop file",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"FUJIFILMCCD-RAW": CAMERA_RAW, b"FOVb": CAMERA_RAW, b"IIU\0": CAMERA_RAW,
    b"IIRO": CAMERA_RAW, b"IIRS": CAMERA_RAW, b"MMOR": CAMERA_RAW,
    b"II\x1a\0\0\0HEAPCCDR": CAMERA_RAW, b"\0MRM": CAMERA_RAW,
    b"gimp xcf": "GIMP file",
    b"SIMPLE  =": "FITS",
    b"DDS ": "DDS",
    b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip archive", b"\x1f\x8b": "gzip archive", b"Rar!": "RAR archive",
    b"BZh": "bzip2 archive", b"\xfd7zXZ": "xz archive", b"\x28\xb5\x2f\xfd": "Zstandard archive",
    b"\0\5\x16\7": "AppleDouble file", b"ID3": "sound", b"OggS": "sound", b"fLaC": "sound",
    b"7z\xbc\xaf": "7-Zip archive", b"\x1aE\xdf\xa3": "video", b"\x7fELF": "program",
    b"\x93NUMPY": "NumPy array", b"\x89HDF": "HDF5 file",
    b"version https://git-lfs": "Git LFS pointer", b"/annex/objects/": "git-annex pointer",
}  # fmt: skip
"""First bytes of a file, and what they say."""
ADVICE = {
    "Git LFS pointer": "its content was not fetched: git lfs pull",
    "git-annex pointer": "its content was not fetched: git annex get",
    **dict.fromkeys(("nothing but zeros", "web page", "XML", "PNG that was copied as text"),
                    "fetch or copy it anew"),
    **dict.fromkeys(("video", "sound", "program", "AppleDouble file"), "remove it"),
}  # fmt: skip
"""What to do about what cannot be saved as an image."""
BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC",
    b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF", b"crx ": CAMERA_RAW,
}  # fmt: skip
"""Brands of files that begin with an ISO box 'ftyp' (ISO 14496-12); all others are videos."""
QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""First atoms of QuickTime files older than 'ftyp'."""
WEB_PAGE = re.compile(rb"(<!--.*?-->\s*)*<(!doctype html|html|head|body)", re.DOTALL)
FIRST_BYTES = 512


@cache
def is_installed(package: str) -> bool:
    """Whether an optional package is there: ``pillow_heif`` for HEIF, ``rawpy`` for raw."""
    return importlib.util.find_spec(package) is not None


def readable_endings(raw: bool = False) -> tuple[str, ...]:
    """Return the endings of what is read here, in lower case; of raw files if they may be."""
    heif = HEIF_ENDINGS if is_installed("pillow_heif") else ()
    return (*ENDINGS, *heif, *(RAW_ENDINGS if raw and is_installed("rawpy") else ()))


def unread(kind: str) -> str:
    """Return what is said of a kind that is not read."""
    if kind in ADVICE:
        return ADVICE[kind]
    if kind.endswith("archive"):
        return "unpack it"
    ways = "save it as TIFF, PNG or JPEG"
    heif = kind in ("HEIC", "HEIF", "HIF") and not is_installed("pillow_heif")
    raw = kind == CAMERA_RAW or f".{kind.lower()}" in RAW_ENDINGS
    if heif or (raw and not is_installed("rawpy")):
        ways = f"pip install '.[photos]' reads it, or {ways}"
    return ways


def kind_of(first: bytes, name: str) -> Kind:
    """Return what a file is by its first bytes, whatever its ending says.

    Args:
        first: at least FIRST_BYTES of the file, fewer if it is shorter.
        name: what to call the file in an error.

    Raises:
        UserError: something that is not read; says what it is.
    """
    return readable(_found(first), name)


def readable(found: str | None, name: str) -> Kind:
    """Return the kind of what was found in a file.

    Raises:
        UserError: it is not read; says what it is.
    """
    if found in ("png", "jpeg", "tiff", "webp", "bmp"):
        return found  # type: ignore[return-value]
    if found in ("HEIC", "HEIF") and is_installed("pillow_heif"):
        return "heif"
    if found == CAMERA_RAW and is_installed("rawpy"):
        return "raw"
    if found in (None, "text"):
        what = "not an image but text" if found else "not an image"
        raise UserError(f"{name}: {what}; expected PNG, JPEG, TIFF, BMP or WebP")
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    if found == "empty file":
        raise UserError(f"{name}: empty file; replace or remove it")
    under = f" under the ending {ending}" if ending in ENDINGS else " is not read"
    raise UserError(f"{name}: {found}{under}; {unread(found)}")


def _found(first: bytes) -> str | None:
    if not first:
        return "empty file"
    if not first.strip(b"\0"):
        return "nothing but zeros"
    if first[4:8] == b"ftyp":
        brand, others = first[8:12], first[16 : int.from_bytes(first[:4], "big")]
        # HEIC and AVIF alike may call themselves HEIF first
        return "AVIF" if b"avif" in others and brand == b"mif1" else BRANDS.get(brand, "video")
    if first[128:132] == b"DICM":
        return "DICOM"
    if first[4:8] in QUICKTIME or (first[:4] == b"RIFF" and first[8:12] == b"AVI "):
        return "video"
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return "webp"
    if first[257:262] == b"ustar":
        return "tar archive"
    if first[:4] == b"II*\0" and first[8:10] == b"CR":
        return CAMERA_RAW
    for beginning, found in BEGINNINGS.items():
        if first.startswith(beginning):
            return found
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if WEB_PAGE.match(text):
        return "web page"
    if text.startswith((b"<svg", b"<?xml")):
        return "SVG" if b"<svg" in text else "XML"
    return "text" if _is_text(first) else None


def _is_text(first: bytes) -> bool:
    """Whether bytes are UTF-8, or UTF-16 with its mark, of what can be printed; cut anywhere."""
    marked = first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = codecs.getincrementaldecoder("utf-16" if marked else "utf-8")().decode(first)
    except UnicodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\ufeff" for letter in text)


def damaged(name: str, reason: object) -> str:
    """Return what is said of a damaged image."""
    text = " ".join(str(reason).split())[:200] or type(reason).__name__
    return f"{name}: damaged image ({text}); replace or remove the file"
