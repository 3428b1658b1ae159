"""Rain: plain straight streaks, and layers of rain at several depths behind a veil."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config.degradations import LayeredRain, RainStreaks
from pipeline.degradations.camera import jpeg

# How much the streaks of one layer differ from each other
ANGLE_JITTER_DEGREES = 1.5  # standard deviation
LENGTH_JITTER = 0.3  # lengths are 1 - 0.3 to 1 + 0.3 of the layer's
BRIGHTNESS_JITTER = 0.6  # brightnesses are 1 - 0.6 to 1 of the layer's

AIRLIGHT = 0.7  # grey of the veil: an overcast sky seen through rain


@dataclass(frozen=True)
class Layer:
    """Streaks at one distance; values as in ``RainStreaks``, drawn."""

    streaks_per_megapixel: float
    length_pixels: float
    width_pixels: float
    angle_degrees: float
    brightness: float

    @classmethod
    def drawn(cls, settings: RainStreaks | LayeredRain, generator: np.random.Generator) -> "Layer":
        """Return a layer with every value drawn from its interval."""
        return cls(
            generator.uniform(*settings.streaks_per_megapixel),
            generator.uniform(*settings.length_pixels),
            generator.uniform(*settings.width_pixels),
            generator.uniform(*settings.angle_degrees),
            generator.uniform(*settings.brightness),
        )

    def at_depth(self, depth: float, crowding: float) -> "Layer":
        """Return the layer ``depth`` times as far away, with ``crowding`` times the streaks."""
        return Layer(
            self.streaks_per_megapixel * crowding,
            self.length_pixels / depth,
            self.width_pixels / depth,
            self.angle_degrees,
            self.brightness / depth,
        )


def rain_streaks(
    image: NDArray[np.float32], settings: RainStreaks, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the image with bright straight streaks of one direction added.

    y = clip(x + sum of streaks)

    Args:
        image: (height, width, 3), gamma-coded, in [0, 1]; so is the result.
        settings: intervals of density, length, width, angle and brightness.
        generator: gives the settings in the order of their fields, then the streaks.

    Source: the additive model behind Rain100 and Rain13K, Yang et al., "Deep joint rain detection
    and removal from a single image", CVPR 2017.
    """
    layer = Layer.drawn(settings, generator)
    streaks = draw_streaks(layer, image.shape[0], image.shape[1], generator)
    rainy: NDArray[np.float32] = np.clip(image + streaks[..., None], 0, 1)
    return rainy


def layered_rain(
    image: NDArray[np.float32], settings: LayeredRain, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the image behind a veil and several layers of rain, coded as JPEG.

    Veil:      y = (1 - veil) x + veil AIRLIGHT
    Layer k:   y = 1 - (1 - y) (1 - G_k streaks_k), from the farthest to the nearest ("screen")

    The layers lie at depths 1, 2, ..., layers. As in perspective, length, width, brightness and
    defocus (the sigma of the Gaussian G_k, camera focused far away) fall as 1 / depth, and the
    number of streaks grows as depth^2, scaled so that its mean over the layers is the setting.

    Args:
        image: (height, width, 3), gamma-coded, in [0, 1]; so is the result.
        settings: intervals of the nearest layer, the number of layers, veil and JPEG quality.
        generator: gives the settings in the order of their fields, then the streaks.

    Source: streak layers behind a veil after Li, Cheong, Tan, "Heavy rain image restoration",
    CVPR 2019; rain at several depths, Garg and Nayar, "Vision and rain", IJCV 2007; the screen
    blending and the 1 / depth rule are ours.
    """
    layers = round(generator.uniform(*settings.layers))
    nearest = Layer.drawn(settings, generator)
    blur_pixels = generator.uniform(*settings.blur_pixels)
    veil = np.float32(generator.uniform(*settings.veil))
    quality = round(generator.uniform(*settings.jpeg_quality))

    mean_square_depth = sum(depth**2 for depth in range(1, layers + 1)) / layers
    rainy = (1 - veil) * image + veil * np.float32(AIRLIGHT)
    for depth in range(layers, 0, -1):
        layer = nearest.at_depth(depth, crowding=depth**2 / mean_square_depth)
        streaks = draw_streaks(layer, image.shape[0], image.shape[1], generator)
        streaks = np.clip(ndimage.gaussian_filter(streaks, blur_pixels / depth), 0, 1)
        rainy = 1 - (1 - rainy) * (1 - streaks[..., None])
    return jpeg(rainy, quality)


def draw_streaks(
    layer: Layer, height: int, width: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the sum of the anti-aliased streaks of one layer, (height, width), at least 0.

    A streak is a rectangle; a pixel takes the share that the rectangle covers of it (exact for
    upright streaks). Angles count from the vertical, counter-clockwise: the lower end of a streak
    of positive angle lies to the right. Streaks may cross the image's border. Their number is
    Poisson distributed, so that many small crops hold as many as one large image.
    """
    margin = layer.length_pixels * (1 + LENGTH_JITTER) / 2
    area = (height + 2 * margin) * (width + 2 * margin)
    count = generator.poisson(layer.streaks_per_megapixel * area / 1e6)
    y = generator.uniform(-margin, height + margin, count)
    x = generator.uniform(-margin, width + margin, count)
    lengths = layer.length_pixels * generator.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, count)
    angles = np.deg2rad(layer.angle_degrees + generator.normal(0, ANGLE_JITTER_DEGREES, count))
    brightness = layer.brightness * generator.uniform(1 - BRIGHTNESS_JITTER, 1, count)

    mask = np.zeros((height, width), np.float32)
    for streak in zip(y, x, lengths, angles, brightness, strict=True):
        _add_streak(mask, layer.width_pixels, *streak)
    return mask


def _add_streak(
    mask: NDArray[np.float32],
    width: float,
    y: float,
    x: float,
    length: float,
    angle: float,
    brightness: float,
) -> None:
    """Add one streak with its middle at (y, x) to the mask; pixels and radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    reach_y = (abs(cosine) * length + abs(sine) * width) / 2 + 1
    reach_x = (abs(sine) * length + abs(cosine) * width) / 2 + 1
    top, bottom = max(0, int(y - reach_y)), max(0, int(y + reach_y) + 2)
    left, right = max(0, int(x - reach_x)), max(0, int(x + reach_x) + 2)
    box = mask[top:bottom, left:right]
    from_y = (np.arange(top, top + box.shape[0]) - y)[:, None]
    from_x = np.arange(left, left + box.shape[1]) - x
    along = np.abs(cosine * from_y + sine * from_x)
    across = np.abs(cosine * from_x - sine * from_y)
    # Overlap of a pixel, 1 wide, with a bar: full inside, none beyond, a ramp 1 wide between
    covered = np.clip((length + 1) / 2 - along, 0, min(1, length))
    covered *= np.clip((width + 1) / 2 - across, 0, min(1, width))
    box += brightness * covered
