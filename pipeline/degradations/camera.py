"""A camera's way from light to file: sRGB coding, Bayer mosaic, sensor noise, JPEG."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.config.degradations import Camera, CameraShake
from pipeline.degradations.noise import shot_and_read_noise
from pipeline.images.pixels import as_float, to_uint8

# sRGB transfer function, IEC 61966-2-1:1999
SRGB_SLOPE = 12.92
SRGB_OFFSET = 0.055
SRGB_EXPONENT = 2.4
SRGB_CODED_THRESHOLD = 0.04045
SRGB_LINEAR_THRESHOLD = 0.0031308

# Weights of bilinear interpolation between the pixels of one colour of a Bayer mosaic
GREEN_WEIGHTS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32)
RED_BLUE_WEIGHTS = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32)


def camera(
    image: NDArray[np.float32], settings: Camera, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the image as a phone would take it in low light.

    y = jpeg(linear_to_srgb(x + G D n)),  n = noise of the sensor on the mosaic M x
    variance of n = (iso_gain shot_noise) M x + (iso_gain read_noise)^2

    with x the linear light, M the RGGB mosaic, D bilinear demosaicking, G a Gaussian of sigma
    correlation_pixels. D is linear: D(M x + n) = D M x + D n. D M x is replaced by x, because
    both photographs of a real pair went through D: they differ by noise, not by sharpness. G
    stands for the denoising inside a phone, which turns fine grain into blotches but spares
    edges, so it smooths the noise alone. D and G also lower the noise's standard deviation.
    Chroma that JPEG halves correlates the noise of the colours. The gain is uniform in stops
    (powers of two): it amplifies the light and the read noise alike.

    Args:
        image: (height, width, 3), sRGB, in [0, 1]; so is the result.
        settings: intervals of the noise, its correlation and the JPEG quality.
        generator: gives the settings in the order of their fields, then the noise.

    Source: noise, Foi et al. 2008; order of the steps, and shot and read noise that rise
    together, Brooks et al., "Unprocessing images for learned raw denoising", CVPR 2019 (without
    its white balance, colour matrix and tone curve).
    """
    iso_gain = draw_gain(settings.iso_gain, generator)
    correlation_pixels = generator.uniform(*settings.correlation_pixels)
    quality = round(generator.uniform(*settings.jpeg_quality))

    linear = srgb_to_linear(image)
    noise = demosaicked_noise(linear, settings, iso_gain, correlation_pixels, generator)
    return jpeg(linear_to_srgb(linear + noise), quality)


def draw_gain(interval: tuple[float, float], generator: np.random.Generator) -> float:
    """Return a gain that is uniform in stops (powers of two)."""
    return float(2 ** generator.uniform(*np.log2(interval)))


def demosaicked_noise(
    linear: NDArray[np.float32],
    sensor: Camera | CameraShake,
    iso_gain: float,
    correlation_pixels: float,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Return G D n, what a sensor's noise becomes in the image, see ``camera``.

    Args:
        linear: (height, width, 3), linear light; so is the result.
        sensor: its shot and read noise at gain 1.
        iso_gain: multiplies both.
        correlation_pixels: sigma of the smoothing G.
        generator: gives the noise.
    """
    mosaic = bayer_mosaic(linear)
    mosaic_noise = shot_and_read_noise(
        mosaic, iso_gain * sensor.shot_noise, iso_gain * sensor.read_noise, generator
    )
    mosaic_noise -= mosaic
    sigma = (correlation_pixels, correlation_pixels, 0)
    noise: NDArray[np.float32] = ndimage.gaussian_filter(demosaic(mosaic_noise), sigma)
    return noise


def srgb_to_linear(coded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return sRGB values as linear light.

    x = y / 12.92 where y <= 0.04045, else ((y + 0.055) / 1.055)^2.4

    Args:
        coded: any shape; [0, 1] maps to [0, 1].

    Source: IEC 61966-2-1:1999.
    """
    # The power needs a base above zero even where np.where then takes the straight part
    base = (np.maximum(coded, SRGB_CODED_THRESHOLD) + SRGB_OFFSET) / (1 + SRGB_OFFSET)
    linear: NDArray[np.float32] = np.where(
        coded <= SRGB_CODED_THRESHOLD, coded / SRGB_SLOPE, base**SRGB_EXPONENT
    )
    return linear


def linear_to_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return linear light as sRGB values, not clipped; the inverse of ``srgb_to_linear``.

    y = 12.92 x where x <= 0.0031308, else 1.055 x^(1 / 2.4) - 0.055

    Args:
        linear: any shape; [0, 1] maps to [0, 1].

    Source: IEC 61966-2-1:1999.
    """
    curve = np.maximum(linear, SRGB_LINEAR_THRESHOLD) ** (1 / SRGB_EXPONENT)
    coded: NDArray[np.float32] = np.where(
        linear <= SRGB_LINEAR_THRESHOLD,
        SRGB_SLOPE * linear,
        (1 + SRGB_OFFSET) * curve - SRGB_OFFSET,
    )
    return coded


def jpeg(image: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    """Return the image after JPEG coding with halved chroma (4:2:0), as phones do.

    Args:
        image: (height, width, 3); clipped to [0, 1] and rounded to 8 bits first.
        quality: 1 to 100, on libjpeg's scale.
    """
    file = io.BytesIO()
    pixels = Image.fromarray(to_uint8(image))
    pixels.save(file, format="JPEG", quality=quality, subsampling="4:2:0")
    return as_float(np.asarray(Image.open(file)))


def bayer_mosaic(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the one colour that each pixel of an RGGB sensor sees.

    Args:
        linear: (height, width, 3); the result is (height, width).
    """
    mosaic: NDArray[np.float32] = (linear * _bayer_mask(*linear.shape[:2])).sum(axis=2)
    return mosaic


def demosaic(mosaic: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return all three colours at every pixel of an RGGB mosaic, bilinearly interpolated.

    Normalised convolution: (w * (m y)) / (w * m), with m the pixels of one colour and w the
    bilinear weights, so that the image's border needs no case of its own.

    Args:
        mosaic: (height, width), at least 2 x 2; the result is (height, width, 3).

    Source: Knutsson and Westin, "Normalized and differential convolution", CVPR 1993.
    """
    mask = _bayer_mask(*mosaic.shape)
    result = np.empty_like(mask)
    for channel, weights in enumerate((RED_BLUE_WEIGHTS, GREEN_WEIGHTS, RED_BLUE_WEIGHTS)):
        known = mask[..., channel]
        total = ndimage.convolve(mosaic * known, weights, mode="constant")
        result[..., channel] = total / ndimage.convolve(known, weights, mode="constant")
    return result


def _bayer_mask(height: int, width: int) -> NDArray[np.float32]:
    """Return 1 where an RGGB sensor sees a colour, else 0: (height, width, 3)."""
    mask = np.zeros((height, width, 3), np.float32)
    mask[0::2, 0::2, 0] = 1
    mask[0::2, 1::2, 1] = 1
    mask[1::2, 0::2, 1] = 1
    mask[1::2, 1::2, 2] = 1
    return mask
