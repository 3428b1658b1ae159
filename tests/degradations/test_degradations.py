"""Degradations, held against arithmetic: formulas, moments, angles."""

import dataclasses
import typing
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data, feature

from pipeline.config.build import tagged
from pipeline.config.degradations import (
    Camera,
    CameraShake,
    Degradation,
    GaussianNoise,
    LayeredRain,
    LinearMotionBlur,
    RainStreaks,
)
from pipeline.config.read import check
from pipeline.degradations import DEGRADATIONS, camera, degrade, noise
from pipeline.images.pixels import as_float

SETTINGS: dict[str, Degradation] = {
    settings.kind: settings
    for settings in (
        GaussianNoise("gaussian_noise", (5, 75)),
        RainStreaks("rain_streaks", (2000, 3000), (5, 20), (1, 3), (-30, 30), (0.3, 0.6)),
        LinearMotionBlur("linear_motion_blur", (5, 20), (-180, 180), (0, 2), (0, 0)),
        Camera("camera", (2, 6), 0.01, 0.01, (0.5, 0.9), (75, 95)),
        LayeredRain(
            "layered_rain", (3, 5), (2000, 3000), (10, 40), (2, 4), (-25, 25), (0.4, 0.9),
            (0.5, 1.5), (0.05, 0.15), (80, 95),
        ),
        CameraShake(
            "camera_shake", (6, 24), (0, 2), (0.9, 1.1), (2, 6), 0.01, 0.01, (0, 0.5), (80, 95)
        ),
    )
}  # fmt: skip
STILL_CAMERA = Camera("camera", (1, 1), 0, 0, (0, 0), (100, 100))
STILL_SHAKE = CameraShake(
    "camera_shake", (12, 12), (0, 0), (1, 1), (1, 1), 0, 0, (0, 0), (100, 100)
)
CLEAR_RAIN = LayeredRain(
    "layered_rain", (3, 3), (0, 0), (30, 30), (3, 3), (0, 0), (0.5, 0.5), (1, 1), (0, 0), (95, 95)
)
STEP = 1 / 255


def texture(height: int, width: int) -> NDArray[np.float32]:
    """Return a smooth random colour image whose values fill [0, 1]."""
    values = np.random.default_rng(0).random((height, width, 3), np.float32)
    values = ndimage.gaussian_filter(values, (2, 2, 0))
    scaled: NDArray[np.float32] = (values - values.min()) / np.ptp(values)
    return scaled


def flat(level: float, size: int = 64) -> NDArray[np.float32]:
    return np.full((size, size, 3), level, np.float32)


def coded(linear: float) -> float:
    """Return sRGB of one linear value above the straight part, by the formula of the standard."""
    return float(1.055 * linear ** (1 / 2.4) - 0.055)


def neighbour_correlation(values: NDArray[np.float32]) -> float:
    return float(np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())[0, 1])


def angle_from_vertical(mask: NDArray[np.float32]) -> float:
    """Return the direction of a picture's lines in degrees, positive with the lower end right."""
    yy, yx, xx = (moment.sum() for moment in feature.structure_tensor(mask, sigma=1))
    # The gradient stands across the lines; the eigenvector of the small eigenvalue lies along them
    _, vectors = np.linalg.eigh([[yy, yx], [yx, xx]])
    y, x = vectors[:, 0]
    return float(np.rad2deg(np.arctan(x / y)))


def kernel_moments(kernel: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean (y, x) relative to the middle and covariance of a kernel, in pixels."""
    radius = kernel.shape[0] // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1)
    covariance = np.cov(y, x, aweights=kernel.ravel().astype(np.float64), bias=True)
    return np.array([(kernel.ravel() * y).sum(), (kernel.ravel() * x).sum()]), covariance


# Every degradation


def test_every_model_of_the_configuration_has_a_function() -> None:
    _, by_model = tagged(list(typing.get_args(Degradation)))
    assert set(DEGRADATIONS) == set(by_model) == set(SETTINGS)


@pytest.mark.parametrize("model", DEGRADATIONS)
@pytest.mark.parametrize("size", [(16, 16), (37, 52), (64, 48)])
def test_degradation_keeps_type_shape_range_and_input(model: str, size: tuple[int, int]) -> None:
    image = texture(*size)
    before = image.copy()
    image.setflags(write=False)
    degraded = degrade(image, SETTINGS[model], np.random.default_rng(1))
    assert degraded.dtype == np.float32
    assert degraded.shape == image.shape
    assert not np.shares_memory(degraded, image)
    assert np.isfinite(degraded).all()
    if model != "gaussian_noise":
        assert degraded.min() >= 0
        assert degraded.max() <= 1
    assert image.tobytes() == before.tobytes()
    assert not np.array_equal(degraded, image)


@pytest.mark.parametrize("model", DEGRADATIONS)
def test_degradation_depends_on_the_generator_alone(model: str) -> None:
    image = texture(48, 48)

    def once(seed: int) -> bytes:
        return degrade(image, SETTINGS[model], np.random.default_rng(seed)).tobytes()

    first = once(3)
    assert once(4) != first
    assert once(3) == first


@pytest.mark.parametrize("model", ["rain_streaks", "linear_motion_blur"])
def test_colourless_image_stays_colourless(model: str) -> None:
    grey = np.repeat(texture(40, 40)[..., :1], 3, axis=2)
    degraded = degrade(grey, SETTINGS[model], np.random.default_rng(0))
    assert_allclose(np.ptp(degraded, axis=2), 0, atol=1e-5)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.float32)])
def test_other_types_and_shapes_are_refused(image: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=r"found .*, expected float32 \(height, width, 3\)"):
        degrade(image, SETTINGS["gaussian_noise"], np.random.default_rng(0))


# Noise


@pytest.mark.parametrize("sigma_255", [10, 75])
def test_gaussian_noise_has_its_sigma_and_is_not_clipped(sigma_255: float) -> None:
    settings = GaussianNoise("gaussian_noise", (sigma_255, sigma_255))
    degraded = noise.gaussian_noise(flat(1.0, 256), settings, np.random.default_rng(0))
    samples = degraded.size
    assert_allclose(degraded.std(), sigma_255 / 255, rtol=5 / np.sqrt(2 * samples))
    assert_allclose(degraded.mean(), 1, atol=5 * sigma_255 / 255 / np.sqrt(samples))
    assert (degraded > 1).mean() == pytest.approx(0.5, abs=0.01)


def test_gaussian_noise_draws_sigma_uniformly_for_each_image() -> None:
    settings = GaussianNoise("gaussian_noise", (0, 75))
    generator = np.random.default_rng(0)
    sigmas = [noise.gaussian_noise(flat(0.5), settings, generator).std() for _ in range(200)]
    # Mean 37.5 and standard deviation 75 / sqrt(12) = 21.65 of U[0, 75]
    assert np.mean(sigmas) * 255 == pytest.approx(37.5, abs=5)
    assert np.std(sigmas) * 255 == pytest.approx(21.65, abs=3)


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("shot_noise", "read_noise"), [(0.03, 0.02), (0.0, 0.05), (0.01, 0.0)])
def test_sensor_noise_has_the_variance_of_the_formula(
    level: float, shot_noise: float, read_noise: float
) -> None:
    linear = np.full((400, 400), level, np.float32)
    noisy = noise.shot_and_read_noise(linear, shot_noise, read_noise, np.random.default_rng(0))
    expected = shot_noise * level + read_noise**2
    assert noisy.dtype == np.float32
    assert_allclose(noisy.var(), expected, rtol=0.02, atol=1e-12)
    assert_allclose(noisy.mean(), level, atol=5 * np.sqrt(expected / linear.size) + 1e-6)


# Camera


def test_srgb_has_the_values_of_the_standard() -> None:
    values = np.array([0, 0.02, 0.04045, 0.5, 1], np.float32)
    linear = camera.srgb_to_linear(values)
    assert linear.dtype == np.float32
    # 0.02 / 12.92, 0.04045 / 12.92, ((0.5 + 0.055) / 1.055) ** 2.4
    assert_allclose(linear, [0, 0.001547988, 0.003130805, 0.214041, 1], rtol=1e-5)
    assert_allclose(
        camera.linear_to_srgb(np.array([0.18, 0.001], np.float32)), [0.461356, 0.01292], rtol=1e-5
    )


def test_srgb_there_and_back_is_the_identity() -> None:
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    assert_allclose(camera.linear_to_srgb(camera.srgb_to_linear(values)), values, atol=1e-6)
    assert np.isfinite(camera.linear_to_srgb(np.array([-0.1, 1.5], np.float32))).all()


def test_jpeg_rounds_to_8_bits_and_loses_more_at_lower_quality() -> None:
    image = texture(64, 64)
    results = [camera.jpeg(image, quality) for quality in (100, 50, 10)]
    errors = [float(np.abs(result - image).mean()) for result in results]
    assert errors[0] < errors[1] < errors[2]
    assert_allclose(results[1] * 255, np.rint(results[1] * 255), atol=1e-4)
    assert_allclose(camera.jpeg(flat(100.4 / 255), 95), 100 / 255, atol=1e-6)
    assert_allclose(camera.jpeg(flat(1.3), 95), 1)


def test_mosaic_is_rggb() -> None:
    colours = np.broadcast_to(np.array([0.1, 0.2, 0.3], np.float32), (4, 6, 3))
    tile = camera.bayer_mosaic(colours)[:2, :2]
    assert_allclose(tile, [[0.1, 0.2], [0.2, 0.3]])


@pytest.mark.parametrize("size", [(16, 16), (17, 23)])
def test_demosaicking_is_exact_on_planes(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[0], : size[1]]
    plane = np.stack([0.01 * y, 0.02 * x, 0.3 - 0.01 * y + 0.005 * x], axis=2).astype(np.float32)
    found = camera.demosaic(camera.bayer_mosaic(plane))
    assert_allclose(found[2:-2, 2:-2], plane[2:-2, 2:-2], atol=1e-6)
    constant = np.broadcast_to(np.array([0.2, 0.5, 0.7], np.float32), plane.shape)
    assert_allclose(camera.demosaic(camera.bayer_mosaic(constant)), constant, atol=1e-6)


def test_camera_without_noise_changes_no_more_than_jpeg() -> None:
    image = texture(64, 64)
    degraded = camera.camera(image, STILL_CAMERA, np.random.default_rng(0))
    assert_allclose(degraded, camera.jpeg(image, 100), atol=2 * STEP)


def test_demosaicked_noise_has_the_moments_of_bilinear_interpolation() -> None:
    mosaic = np.random.default_rng(0).standard_normal((512, 512), np.float32)
    red, green, _ = np.moveaxis(camera.demosaic(mosaic)[4:-4, 4:-4], 2, 0)
    # Variance 1 where the sensor sees a colour, 1/2 between two such pixels, 1/4 between four
    assert_allclose([red[::2, ::2].var(), green[::2, 1::2].var()], 1, rtol=0.03)
    assert_allclose([red[::2, 1::2].var(), red[1::2, ::2].var()], 0.5, rtol=0.03)
    assert_allclose([red[1::2, 1::2].var(), green[::2, ::2].var()], 0.25, rtol=0.03)
    # Covariance of neighbours over variance, averaged over the mosaic's four kinds of pixel
    assert neighbour_correlation(red) == pytest.approx((2 * 0.5 + 2 * 0.25) / 2.25, abs=0.01)
    assert neighbour_correlation(green) == pytest.approx(4 * 0.25 / 2.5, abs=0.01)


@pytest.mark.parametrize(("pixels", "lowest"), [(0.0, 0.35), (1.0, 0.78)])
def test_camera_noise_is_correlated_and_white_noise_is_not(pixels: float, lowest: float) -> None:
    settings = dataclasses.replace(
        STILL_CAMERA, read_noise=0.05, correlation_pixels=(pixels, pixels)
    )
    degraded = camera.camera(flat(0.5, 256), settings, np.random.default_rng(0))
    white = degrade(flat(0.5, 256), SETTINGS["gaussian_noise"], np.random.default_rng(0))
    for channel in range(3):
        # Demosaicking gives 0.4 or more, see above; a Gaussian of sigma s makes white noise
        # exp(-1 / (4 s^2)) = 0.78, and noise that is correlated already more than that
        assert lowest < neighbour_correlation(degraded[..., channel]) < 0.95
        assert abs(neighbour_correlation(white[..., channel])) < 0.03


def test_camera_noise_has_no_bias_and_its_variance_follows_the_signal() -> None:
    settings = dataclasses.replace(STILL_CAMERA, shot_noise=0.002)
    deviations = []
    for level in (0.1, 0.4):
        image = flat(coded(level), 256)
        degraded = camera.camera(image, settings, np.random.default_rng(0))
        linear = camera.srgb_to_linear(degraded)
        assert_allclose(linear.mean(axis=(0, 1)), level, rtol=0.02)
        deviations.append(linear[..., 1].std())
    # Shot noise: four times the light, twice the deviation
    assert deviations[1] / deviations[0] == pytest.approx(2, rel=0.1)


def test_gain_amplifies_shot_noise_by_its_root_and_read_noise_by_itself() -> None:
    for noises, factor in (({"shot_noise": 0.002}, 2), ({"read_noise": 0.01}, 4)):
        deviations = []
        for gain in (1, 4):
            settings = dataclasses.replace(STILL_CAMERA, iso_gain=(gain, gain), **noises)
            degraded = camera.camera(flat(coded(0.3), 256), settings, np.random.default_rng(0))
            deviations.append(camera.srgb_to_linear(degraded)[..., 1].std())
        assert deviations[1] / deviations[0] == pytest.approx(factor, rel=0.1)


def test_gains_are_uniform_in_stops() -> None:
    settings = dataclasses.replace(STILL_CAMERA, iso_gain=(1, 16), read_noise=0.008)
    found = [
        camera.srgb_to_linear(
            camera.camera(flat(coded(0.3)), settings, np.random.default_rng(seed))
        )[..., 1].std()
        for seed in range(100)
    ]
    stops = np.log2(np.array(found) / min(found))
    assert stops.max() == pytest.approx(4, abs=0.3)
    assert stops.mean() == pytest.approx(2, abs=0.4)


def test_the_demo_has_the_noise_of_real_pairs(values: dict[str, Any]) -> None:
    """Ranges of real pairs: RENOIR, PolyU, CC15 and smartphones, noise = degraded - clean."""
    simulated = check(values).tasks["denoise"].simulated_real
    assert simulated is not None and isinstance(simulated.degradation, Camera)
    photograph = data.coffee()[100:260, 200:360]
    side = round(160 * simulated.enlargement)
    lanczos = PIL.Image.Resampling.LANCZOS
    soft = as_float(np.asarray(PIL.Image.fromarray(photograph).resize((side, side), lanczos)))
    assert 1.5 <= 255 * np.abs(np.diff(soft, axis=1)).mean() <= 3.0
    deviations, correlations, colours = [], [], []
    for seed in range(12):
        added = degrade(soft, simulated.degradation, np.random.default_rng(seed)) - soft
        added -= added.mean(axis=(0, 1))
        green = added[..., 1]
        correlations.append(
            [(green[:, n:] * green[:, :-n]).mean() / green.var() for n in (1, 2, 3)]
        )
        colours.append(np.corrcoef(added.reshape(-1, 3).T)[np.triu_indices(3, 1)])
        deviations.append(255 * added.std())
    found = np.mean(correlations, axis=0)  # of pixels at distances of 1, 2, 3
    assert (found >= [0.21, 0.00, 0.03]).all() and (found <= [0.60, 0.26, 0.17]).all()
    between = np.mean(colours, axis=0)
    assert between.min() >= 0.02 and between.max() <= 0.65
    assert min(deviations) >= 8 and max(deviations) <= 37
    assert max(deviations) > 1.5 * min(deviations), "the ISO varies from image to image"
