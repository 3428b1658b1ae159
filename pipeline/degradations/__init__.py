"""Degradations: pure functions from a clean image, settings and a generator to a degraded image.

noise.py, rain.py and blur.py hold one topic each; camera.py also holds what several of them
need of a camera: sRGB coding and JPEG. A new model is a dataclass in
``pipeline/config/degradations.py``, a function here, and a line in ``DEGRADATIONS``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.degradations import Degradation
from pipeline.degradations import blur, camera, noise, rain

Degrade = Callable[[NDArray[np.float32], Any, np.random.Generator], NDArray[np.float32]]
"""(image, settings, generator) -> degraded image."""

DEGRADATIONS: dict[str, Degrade] = {
    "gaussian_noise": noise.gaussian_noise,
    "rain_streaks": rain.rain_streaks,
    "linear_motion_blur": blur.linear_motion_blur,
    "camera": camera.camera,
    "layered_rain": rain.layered_rain,
    "camera_shake": blur.camera_shake,
}


def degrade(
    image: NDArray[np.float32], settings: Degradation, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return a degraded copy of a clean image; the input is left as it is.

    Args:
        image: (height, width, 3), float32 RGB in [0, 1].
        settings: the model to use, by its ``model``, and the intervals that it draws from.
        generator: the only source of randomness; in the same state it gives the same bytes.

    Returns:
        An array like the image, in [0, 1]; ``gaussian_noise`` alone may leave that range.

    Raises:
        ValueError: the image has another type or shape.
    """
    if image.dtype != np.float32 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image: found {image.dtype} {image.shape}, expected float32 (height, width, 3)"
            " in [0, 1]"
        )
    return DEGRADATIONS[settings.kind](image, settings, generator)
