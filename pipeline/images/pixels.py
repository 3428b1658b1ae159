"""Images are float32 RGB in [0, 1]; stores and files hold 8-bit values."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Image = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def as_float(pixels: Pixels) -> Image:
    """Return 8-bit values as float32 in [0, 1], any shape."""
    return pixels.astype(np.float32) / np.float32(255)


def to_uint8(image: NDArray[np.floating[Any]]) -> Pixels:
    """Return an image as 8-bit values, any shape: clamped to [0, 1], then rounded.

    In this order an overshoot of 1.3 becomes 255; a bare cast would wrap round to 75.

    Raises:
        ValueError: a value is not finite, or the values are not floating-point.
    """
    if not np.issubdtype(image.dtype, np.floating) or not np.isfinite(image).all():
        raise ValueError(f"found {image.dtype} values, expected finite floating-point ones")
    pixels: Pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return pixels


def to_range(images: "Tensor", image_range: tuple[float, float]) -> "Tensor":
    """Return images of [0, 1] in a network's range: black + (white - black) x."""
    black, white = image_range
    return images if image_range == (0, 1) else images * (white - black) + black


def from_range(images: "Tensor", image_range: tuple[float, float]) -> "Tensor":
    """Return images of a network's range in [0, 1]: the inverse of ``to_range``."""
    black, white = image_range
    return images if image_range == (0, 1) else (images - black) / (white - black)
