"""Settings of the models that degrade clean images."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.config.build import Interval, Setting


@dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise, not clipped (the paper's synthetic denoising domain)."""

    kind: Literal["gaussian_noise"]
    sigma_255: Annotated[
        Interval, Setting(low=0, high=255, unit="standard deviation on a scale of 255")
    ]


@dataclass(frozen=True)
class RainStreaks:
    """Bright straight streaks of one direction, added to the image."""

    kind: Literal["rain_streaks"]
    streaks_per_megapixel: Annotated[Interval, Setting(low=0, high=1e5, unit="of 10^6 pixels")]
    length_pixels: Annotated[Interval, Setting(low=1, high=1000, unit="pixels")]
    width_pixels: Annotated[Interval, Setting(low=0.1, high=50, unit="pixels")]
    angle_degrees: Annotated[Interval, Setting(low=-90, high=90, unit="degrees from vertical")]
    brightness: Annotated[Interval, Setting(low=0, high=1, unit="of a streak, added")]


@dataclass(frozen=True)
class LinearMotionBlur:
    """Uniform motion along a straight line, out of focus, with white noise: on coded values."""

    kind: Literal["linear_motion_blur"]
    length_pixels: Annotated[Interval, Setting(low=1, high=200, unit="pixels")]
    angle_degrees: Annotated[Interval, Setting(low=-180, high=180, unit="degrees")]
    defocus_pixels: Annotated[
        Interval, Setting(low=0, high=50, unit="radius of the circle of confusion, pixels")
    ]
    noise_sigma_255: Annotated[
        Interval, Setting(low=0, high=255, unit="standard deviation on a scale of 255")
    ]


@dataclass(frozen=True)
class Camera:
    """A camera in low light: Poisson-Gaussian noise on a Bayer mosaic, demosaicked and coded.

    ``shot_noise`` and ``read_noise`` are those of gain 1, the lowest ISO.
    """

    kind: Literal["camera"]
    iso_gain: Annotated[Interval, Setting(low=1, high=1000, unit="times the lowest ISO")]
    shot_noise: Annotated[float, Setting(low=0, high=1, unit="variance per unit of linear signal")]
    read_noise: Annotated[float, Setting(low=0, high=1, unit="standard deviation in linear signal")]
    correlation_pixels: Annotated[
        Interval, Setting(low=0, high=10, unit="sigma of the smoothing, pixels")
    ]
    jpeg_quality: Annotated[Interval, Setting(low=1, high=100, unit="of libjpeg")]


@dataclass(frozen=True)
class LayeredRain:
    """Rain at several depths, each out of focus by its own amount, with a veil of far rain."""

    kind: Literal["layered_rain"]
    layers: Annotated[Interval, Setting(low=1, high=10, unit="depths, rounded")]
    streaks_per_megapixel: Annotated[Interval, Setting(low=0, high=1e5, unit="per layer")]
    length_pixels: Annotated[Interval, Setting(low=1, high=1000, unit="pixels, nearest layer")]
    width_pixels: Annotated[Interval, Setting(low=0.1, high=50, unit="pixels, nearest layer")]
    angle_degrees: Annotated[Interval, Setting(low=-90, high=90, unit="degrees from vertical")]
    brightness: Annotated[Interval, Setting(low=0, high=1, unit="of a streak, added")]
    blur_pixels: Annotated[Interval, Setting(low=0, high=20, unit="sigma of the defocus, pixels")]
    veil: Annotated[Interval, Setting(low=0, high=1, unit="share of grey light mixed in")]
    jpeg_quality: Annotated[Interval, Setting(low=1, high=100, unit="of libjpeg")]


@dataclass(frozen=True)
class CameraShake:
    """A curved camera path, out of focus: linear light, clipped highlights, noise of ``Camera``."""

    kind: Literal["camera_shake"]
    extent_pixels: Annotated[Interval, Setting(low=1, high=200, unit="pixels")]
    defocus_pixels: Annotated[
        Interval, Setting(low=0, high=50, unit="radius of the circle of confusion, pixels")
    ]
    exposure_gain: Annotated[
        Interval, Setting(low=0.1, high=10, unit="linear light before clipping")
    ]
    iso_gain: Annotated[Interval, Setting(low=1, high=1000, unit="times the lowest ISO")]
    shot_noise: Annotated[float, Setting(low=0, high=1, unit="variance per unit of linear signal")]
    read_noise: Annotated[float, Setting(low=0, high=1, unit="standard deviation in linear signal")]
    correlation_pixels: Annotated[
        Interval, Setting(low=0, high=10, unit="sigma of the noise's smoothing, pixels")
    ]
    jpeg_quality: Annotated[Interval, Setting(low=1, high=100, unit="of libjpeg")]


Degradation = GaussianNoise | RainStreaks | LinearMotionBlur | Camera | LayeredRain | CameraShake
