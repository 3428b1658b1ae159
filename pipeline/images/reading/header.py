"""What an image file says of itself, whatever its format."""

from dataclasses import dataclass, field

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.images.files import SIDEWAYS, Kind
from pipeline.runtime.errors import UserError


@dataclass
class Header:
    """What a file holds. ``height`` and ``width`` are as stored, before it is turned upright.

    ``bits``: 8, 16, or 32 for float32. ``channels``: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and
    alpha; a PNG that names a transparent colour has one more. ``notes`` are parts that cannot be
    kept, in words.
    """

    kind: Kind
    height: int = 0
    width: int = 0
    channels: int = 0
    bits: int = 8
    orientation: int = 1
    pages: int = 1
    separate: bool = False  # of a TIFF: its pages have directories of their own
    associated: bool = False  # colours are multiplied by alpha
    inverted: bool = False  # of a TIFF: 0 is white
    palette: bool = False
    narrow_palette: bool = False  # of a TIFF: its colours are of 0 to 255
    exif: bytes | None = None  # a small TIFF; of a TIFF it is the file itself
    xmp: bytes | None = None
    icc_profile: bytes | None = None
    iptc: bytes | None = None
    photoshop: bytes | None = None
    comments: list[bytes] = field(default_factory=list)  # of a JPEG
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    density: tuple[float, float, str] | None = None  # along width and height, a unit
    notes: list[str] = field(default_factory=list)
    directory: ImageFileDirectory_v2 | None = None  # of a TIFF: the tags of its picture
    subimage: int = 0  # of a TIFF: the place of that directory

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width as shown."""
        size = self.height, self.width
        return size[::-1] if self.orientation in SIDEWAYS else size


def require_one_picture(header: Header, name: str, largest_pixels: int, advice: str = "") -> None:
    """Refuse a file of several pictures, or of more pixels than are allowed.

    Raises:
        UserError: either of them.
    """
    pixels = header.height * header.width
    if pixels > largest_pixels:
        raise UserError(
            f"{name}: {header.width} x {header.height} = {pixels / 1e6:,.0f} megapixels, expected"
            f" at most {largest_pixels / 1e6:,.0f}{advice}"
        )
    if header.pages > 1:
        raise UserError(f"{name}: holds {header.pages} pictures; save each as a file of its own")
