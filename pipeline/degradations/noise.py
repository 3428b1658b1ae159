"""Noise: white Gaussian on coded values, shot and read noise of a sensor on linear light."""

import numpy as np
from numpy.typing import NDArray

from pipeline.config.degradations import GaussianNoise


def gaussian_noise(
    image: NDArray[np.float32], settings: GaussianNoise, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the image plus white Gaussian noise, not clipped.

    y = x + sigma n,  n ~ N(0, 1) for every value,  sigma ~ U[sigma_255] / 255

    Args:
        image: (height, width, 3), gamma-coded, in [0, 1]; the result may leave that range.
        settings: sigma_255, the interval of sigma on a scale of 255; one sigma per image.
        generator: gives sigma, then the noise.

    Source: the synthetic denoising domain of Noise-DA (Liao et al., ICLR 2025), whose released
    configuration has sigma ~ U[0, 75] and no clipping.
    """
    sigma = np.float32(generator.uniform(*settings.sigma_255) / 255)
    return image + sigma * generator.standard_normal(image.shape, dtype=np.float32)


def shot_and_read_noise(
    linear: NDArray[np.float32],
    shot_noise: float,
    read_noise: float,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Return linear light as a sensor reads it: Poisson-Gaussian noise, not clipped.

    y = x + sqrt(shot_noise x + read_noise^2) n,  n ~ N(0, 1) for every value

    The Poisson part is approximated by a Gaussian of the same variance; shot_noise = 0 is allowed.

    Args:
        linear: any shape, linear light, 1 is the saturation of the sensor.
        shot_noise: variance per unit of linear signal, the inverse of the photons at saturation.
        read_noise: standard deviation in the dark, in units of linear signal.
        generator: gives the noise.

    Source: Foi, Trimeche, Katkovnik, Egiazarian, "Practical Poissonian-Gaussian noise modeling
    and fitting for single-image raw-data", IEEE TIP 2008 (its heteroskedastic normal form).
    """
    variance = np.float32(shot_noise) * np.maximum(linear, 0) + np.float32(read_noise**2)
    deviation: NDArray[np.float32] = np.sqrt(variance)
    return linear + deviation * generator.standard_normal(linear.shape, dtype=np.float32)
