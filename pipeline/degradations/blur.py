"""Blur: a straight motion on coded values, a curved camera path in linear light; out of focus."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

from pipeline.config.degradations import CameraShake, GaussianNoise, LinearMotionBlur
from pipeline.degradations.camera import (
    demosaicked_noise,
    draw_gain,
    jpeg,
    linear_to_srgb,
    srgb_to_linear,
)
from pipeline.degradations.noise import gaussian_noise

SAMPLES_PER_PIXEL = 8  # of a path's length; enough that its kernel shows no beads
DISC_SAMPLES_PER_PIXEL = 9  # of a side; odd, so that one lies in the middle of the smallest disc
SHAKE_SAMPLES = 1024  # positions during one exposure
SHAKE_SMOOTHNESS = 0.2  # sigma that smooths the velocity, as a share of the exposure

# Light that a clean file has clipped: from HIGHLIGHT_START on, linear light is taken to be
# brighter than coded, HIGHLIGHT_PEAK times at white
HIGHLIGHT_START = 0.95
HIGHLIGHT_PEAK = 2.0


def linear_motion_blur(
    image: NDArray[np.float32], settings: LinearMotionBlur, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the image averaged along a straight line and over a disc, with white noise.

    y = clip(k * d * x + sigma n),  n ~ N(0, 1) for every value

    with k uniform on a line of length_pixels, d on a disc of radius defocus_pixels, both
    anti-aliased and of sum 1; borders are reflected.

    Args:
        image: (height, width, 3), gamma-coded, in [0, 1]; so is the result.
        settings: intervals of length, angle (from the horizontal, counter-clockwise), radius and
            sigma.
        generator: gives the settings in the order of their fields, then the noise.

    Source: the usual uniform-motion model; averaging of coded frames as in the ``blur`` images
    of GoPro, Nah et al., "Deep multi-scale convolutional neural network for dynamic scene
    deblurring", CVPR 2017.
    """
    length_pixels = generator.uniform(*settings.length_pixels)
    angle_degrees = generator.uniform(*settings.angle_degrees)
    defocus_pixels = generator.uniform(*settings.defocus_pixels)
    motion = motion_kernel(straight_path(length_pixels, angle_degrees))
    blurred = convolve(image, out_of_focus(motion, defocus_pixels))
    white = GaussianNoise("gaussian_noise", settings.noise_sigma_255)
    return np.clip(gaussian_noise(blurred, white, generator), 0, 1)


def camera_shake(
    image: NDArray[np.float32], settings: CameraShake, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the image as a shaking hand-held camera, out of focus, would take it.

    y = jpeg(linear_to_srgb(clip(noise(k * d * (exposure_gain expand_highlights(x))))))

    with x the linear light, k the path's kernel and d a disc of radius defocus_pixels. The sensor
    clips after the blur, not before: a lamp brighter than white stays a white track with hard
    edges. It clips after the noise, too: where it is full, there is none. The noise is that of
    ``camera``.

    Args:
        image: (height, width, 3), sRGB, in [0, 1]; so is the result.
        settings: intervals of the path's extent, defocus, exposure, noise and JPEG quality.
        generator: gives the settings in the order of their fields, then the path, then the noise.

    Source: steps and their order, Rim et al., "Realistic blur synthesis for learning image
    deblurring", ECCV 2022; random path, see ``shake_path``.
    """
    extent_pixels = generator.uniform(*settings.extent_pixels)
    defocus_pixels = generator.uniform(*settings.defocus_pixels)
    exposure_gain = np.float32(generator.uniform(*settings.exposure_gain))
    iso_gain = draw_gain(settings.iso_gain, generator)
    correlation_pixels = generator.uniform(*settings.correlation_pixels)
    quality = round(generator.uniform(*settings.jpeg_quality))

    kernel = out_of_focus(motion_kernel(shake_path(extent_pixels, generator)), defocus_pixels)
    radiance = convolve(exposure_gain * expand_highlights(srgb_to_linear(image)), kernel)
    noise = demosaicked_noise(radiance, settings, iso_gain, correlation_pixels, generator)
    return jpeg(linear_to_srgb(np.clip(radiance + noise, 0, 1)), quality)


def expand_highlights(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return linear light with the brightness beyond white that a coded image has lost.

    x (1 + (HIGHLIGHT_PEAK - 1) t^2),  t = max(0, x - HIGHLIGHT_START) / (1 - HIGHLIGHT_START)

    Args:
        linear: any shape, in [0, 1]; the result is in [0, HIGHLIGHT_PEAK].
    """
    share: NDArray[np.float32] = np.maximum(linear - HIGHLIGHT_START, 0) / (1 - HIGHLIGHT_START)
    return linear * (1 + (HIGHLIGHT_PEAK - 1) * share**2)


def straight_path(length_pixels: float, angle_degrees: float) -> NDArray[np.float64]:
    """Return evenly spaced positions (y, x) on a line through the origin, (samples, 2), in pixels.

    The angle counts from the horizontal, counter-clockwise as seen (the y axis points down).
    """
    samples = max(1, round(length_pixels * SAMPLES_PER_PIXEL))
    position = length_pixels * ((np.arange(samples) + 0.5) / samples - 0.5)
    angle = np.deg2rad(angle_degrees)
    return np.stack([-np.sin(angle) * position, np.cos(angle) * position], axis=1)


def shake_path(extent_pixels: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return positions (y, x) of a smooth random camera path, (samples, 2), in pixels.

    The velocity is white noise smoothed over time, so the path bends and its speed varies; its
    farthest points are extent_pixels apart and its mean is the origin, so that the blurred image
    is not shifted against the clean one.

    Source: inertia of the path, Boracchi and Foi, "Modeling the performance of image restoration
    from motion blur", IEEE TIP 2012; smooth random processes in place of their random walk, as in
    Schuler et al., "Learning to deblur", IEEE TPAMI 2016.
    """
    sigma = SHAKE_SMOOTHNESS * SHAKE_SAMPLES
    margin = round(4 * sigma)  # as far as the filter reaches: where it sees no reflected noise
    noise = generator.standard_normal((SHAKE_SAMPLES + 2 * margin, 2))
    velocity = ndimage.gaussian_filter1d(noise, sigma, axis=0)[margin:-margin]
    path = np.cumsum(velocity, axis=0)
    # Only corners of the convex hull can be the farthest points
    corners = path[spatial.ConvexHull(path).vertices]
    path *= extent_pixels / spatial.distance.pdist(corners).max()
    centred: NDArray[np.float64] = path - path.mean(axis=0)
    return centred


def motion_kernel(path: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the blur kernel of a path: the share of the exposure spent at each pixel.

    Every position is spread over its four nearest pixels with bilinear weights, so the kernel's
    mean is the path's. The sum is 1; the sides are odd and as short as the path allows.

    Args:
        path: (samples, 2), positions (y, x) in pixels at equal steps of time.
    """
    radius = int(np.ceil(np.abs(path).max()))
    # One more row and column, cut off again, take the zero weights of positions on the border
    kernel = np.zeros((2 * radius + 2, 2 * radius + 2))
    corner = np.floor(path).astype(int)
    y, x = (corner + radius).T
    y_part, x_part = (path - corner).T
    np.add.at(kernel, (y, x), (1 - y_part) * (1 - x_part))
    np.add.at(kernel, (y, x + 1), (1 - y_part) * x_part)
    np.add.at(kernel, (y + 1, x), y_part * (1 - x_part))
    np.add.at(kernel, (y + 1, x + 1), y_part * x_part)
    return (kernel[:-1, :-1] / len(path)).astype(np.float32)


def out_of_focus(kernel: NDArray[np.float32], radius_pixels: float) -> NDArray[np.float32]:
    """Return a blur kernel convolved with that of a lens out of focus: a uniform disc.

    The disc is the circle of confusion of geometric optics. Its pixels on the rim weigh by the
    share of them that it covers. A radius of 0 returns the kernel as it is.
    """
    from scipy import signal  # half a second, and each training imports this file

    if radius_pixels == 0:
        return kernel
    side, samples = 2 * int(np.ceil(radius_pixels + 0.5)) + 1, DISC_SAMPLES_PER_PIXEL
    offsets = (np.arange(side * samples) + 0.5) / samples - side / 2
    inside = np.hypot(offsets[:, None], offsets) <= radius_pixels
    parts = inside.reshape(side, samples, side, samples)
    disc = (parts.sum(axis=(1, 3)) / inside.sum()).astype(np.float32)
    blurred: NDArray[np.float32] = signal.convolve(kernel, disc, method="direct")
    return blurred


def convolve(image: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each channel convolved with the kernel; the image is mirrored at its borders.

    Args:
        image: (height, width, 3).
        kernel: (side, side), side odd, sum 1; may be larger than the image.
    """
    from scipy import signal

    radius = kernel.shape[0] // 2
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    blurred: NDArray[np.float32] = signal.fftconvolve(
        padded, kernel[..., None], mode="valid", axes=(0, 1)
    )
    return blurred
