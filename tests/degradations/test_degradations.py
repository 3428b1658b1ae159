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
from pipeline.degradations import DEGRADATIONS, blur, camera, degrade, noise, rain
from pipeline.images.pixels import as_float

SETTINGS: dict[str, Degradation] = {
    settings.kind: settings
    for settings in (
        GaussianNoise("gaussian_noise", (5, 75)),
        RainStreaks("rain_streaks", (2000, 3000), (5, 20), (1, 3), (-30, 30), (0.3, 0.6)),
        LinearMotionBlur("linear_motion_blur", (5, 20), (-180, 180)),
        Camera("camera", (2, 6), 0.01, 0.01, (0.5, 0.9), (75, 95)),
        LayeredRain(
            "layered_rain", (3, 5), (2000, 3000), (10, 40), (2, 4), (-25, 25), (0.4, 0.9),
            (0.5, 1.5), (0.05, 0.15), (80, 95),
        ),
        CameraShake(
            "camera_shake", (6, 24), (0.9, 1.1), (0.0005, 0.003), (0.002, 0.006), (80, 95)
        ),
    )
}  # fmt: skip
STILL_CAMERA = Camera("camera", (1, 1), 0, 0, (0, 0), (100, 100))
STILL_SHAKE = CameraShake("camera_shake", (12, 12), (1, 1), (0, 0), (0, 0), (100, 100))
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


# Rain


@pytest.mark.parametrize("angle", [-40.0, 0.0, 25.0])
def test_streaks_only_brighten_and_have_their_angle(angle: float) -> None:
    settings = RainStreaks(
        "rain_streaks", (1500, 1500), (40, 40), (2, 2), (angle, angle), (0.5, 0.5)
    )
    image = texture(200, 150) * np.float32(0.5)
    added = degrade(image, settings, np.random.default_rng(0)) - image
    assert added.min() >= 0
    assert added.max() > 0.3
    assert angle_from_vertical(added[..., 0]) == pytest.approx(angle, abs=3)


def test_streaks_cover_the_area_that_their_number_length_and_width_say() -> None:
    layer = rain.Layer(
        streaks_per_megapixel=1000, length_pixels=20, width_pixels=1.5, angle_degrees=20,
        brightness=0.5,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    masks = [rain.draw_streaks(layer, 128, 160, generator) for _ in range(20)]
    # Density 1e-3 times length 20, width 1.5 and the mean brightness 0.5 (1 - 0.6 / 2)
    assert np.mean(masks) == pytest.approx(1e-3 * 20 * 1.5 * 0.5 * 0.7, rel=0.1)
    borders = np.mean([[mask[:8].mean(), mask[:, -8:].mean()] for mask in masks])
    assert borders == pytest.approx(np.mean(masks), rel=0.25)


@pytest.mark.parametrize("width", [0.4, 1.0, 3.0])
def test_upright_streak_covers_its_rectangle(width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for jitter in ("ANGLE_JITTER_DEGREES", "LENGTH_JITTER", "BRIGHTNESS_JITTER"):
        monkeypatch.setattr(rain, jitter, 0)
    layer = rain.Layer(30, 10, width, 0, 1)
    alone = 0
    for seed in range(100):
        mask = rain.draw_streaks(layer, 100, 100, np.random.default_rng(seed))
        # Only pictures of one streak that lies wholly inside
        if ndimage.label(mask)[1] == 1 and not mask[[0, -1]].any() and not mask[:, [0, -1]].any():
            alone += 1
            rows, columns = np.nonzero(mask)
            assert mask.sum() == pytest.approx(10 * width, rel=1e-4)
            assert mask.max() == pytest.approx(min(1, width), abs=0.5 * min(1, width))
            assert np.ptp(rows) + 1 in (10, 11)
            assert np.ptp(columns) + 1 <= np.ceil(width) + 1
    assert alone > 5


def test_small_crops_hold_as_many_streaks_as_one_large_image() -> None:
    layer = rain.Layer(500, 8, 1, 0, 1)
    generator = np.random.default_rng(0)
    small = np.mean([rain.draw_streaks(layer, 16, 16, generator).mean() for _ in range(1500)])
    large = np.mean([rain.draw_streaks(layer, 256, 256, generator).mean() for _ in range(6)])
    assert small == pytest.approx(large, rel=0.2)


def test_farther_layers_are_shorter_thinner_dimmer_and_fuller() -> None:
    near = rain.Layer(500, 60, 3, 10, 0.9)
    far = near.at_depth(3, crowding=2)
    assert dataclasses.astuple(far) == pytest.approx((1000, 20, 1, 10, 0.3))


@pytest.mark.parametrize("veil", [0.0, 0.1, 0.3])
def test_veil_mixes_in_grey_light(veil: float) -> None:
    settings = dataclasses.replace(CLEAR_RAIN, veil=(veil, veil))
    black = degrade(flat(0), settings, np.random.default_rng(0))
    white = degrade(flat(1), settings, np.random.default_rng(0))
    assert_allclose(black, 0.7 * veil, atol=STEP)
    assert_allclose(white, 1 - 0.3 * veil, atol=STEP)


def test_layers_are_blended_and_never_add_up_beyond_white() -> None:
    settings = dataclasses.replace(
        CLEAR_RAIN, streaks_per_megapixel=(3000, 3000), angle_degrees=(15, 15), layers=(4, 4)
    )
    grey = degrade(flat(0.2, 160), settings, np.random.default_rng(2))[..., 0]
    bright = degrade(flat(0.8, 160), settings, np.random.default_rng(2))[..., 0]
    assert angle_from_vertical(grey) == pytest.approx(15, abs=4)
    # y = 1 - (1 - x) t with the same t: what a streak adds shrinks with the darkness left
    transmission = np.stack([(1 - grey) / 0.8, (1 - bright) / 0.2])
    assert transmission[0].min() < 0.8
    assert np.abs(transmission[0] - transmission[1]).mean() < 0.02


def test_defocus_widens_the_streaks() -> None:
    def sharpness(blur_pixels: float) -> float:
        settings = dataclasses.replace(
            CLEAR_RAIN, streaks_per_megapixel=(1500, 1500), blur_pixels=(blur_pixels, blur_pixels)
        )
        rainy = degrade(flat(0.2, 128), settings, np.random.default_rng(0))
        return float(np.abs(np.diff(rainy[..., 0], axis=1)).mean())

    assert sharpness(0) > 1.5 * sharpness(2)


# Blur


@pytest.mark.parametrize("length", [1.0, 7.0, 12.5, 31.0])
@pytest.mark.parametrize("angle", [-135.0, 0.0, 30.0, 90.0])
def test_straight_kernel_has_its_length_and_angle(length: float, angle: float) -> None:
    kernel = blur.motion_kernel(blur.straight_path(length, angle))
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.shape[0] <= length + 3
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    mean, covariance = kernel_moments(kernel)
    assert_allclose(mean, 0, atol=1e-4)
    values, vectors = np.linalg.eigh(covariance)
    # A uniform line has the variance L^2 / 12; bilinear weights add at most 1/4 in x and y
    assert length**2 / 12 - 0.01 <= values[1] <= length**2 / 12 + 0.26
    assert values[0] <= 0.26
    if length > 5:
        y, x = vectors[:, 1]
        found = np.rad2deg(np.arctan2(-y, x))
        assert abs((found - angle + 90) % 180 - 90) < 2


def test_horizontal_kernel_of_odd_length_is_a_box() -> None:
    kernel = blur.motion_kernel(blur.straight_path(5, 0))
    middle = kernel[kernel.shape[0] // 2]
    # 1/5 in the middle; each end, half a pixel on the line, spreads 1/40 on its outer neighbour
    assert_allclose(middle, [0.025, 0.175, 0.2, 0.2, 0.2, 0.175, 0.025], atol=0.002)
    assert kernel.sum() - middle.sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_shake_path_has_its_extent_is_centred_smooth_and_curved(seed: int) -> None:
    path = blur.shake_path(15, np.random.default_rng(seed))
    distances = np.linalg.norm(path[:, None] - path[None, ::8], axis=2)
    assert distances.max() == pytest.approx(15, rel=0.01)
    assert_allclose(path.mean(axis=0), 0, atol=1e-9)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert np.linalg.norm(np.diff(path, 2, axis=0), axis=1).max() < 0.05 * steps.max()
    assert steps.sum() > 1.0005 * 15
    kernel = blur.motion_kernel(path)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert_allclose(kernel_moments(kernel)[0], 0, atol=1e-4)
    rows, columns = np.nonzero(kernel)
    diagonal = np.hypot(np.ptp(rows), np.ptp(columns))
    assert 15 - 1 <= diagonal <= 15 * np.sqrt(2) + 3


def test_convolution_is_the_sum_of_shifts_with_mirrored_borders() -> None:
    image = texture(20, 24)
    kernel = np.zeros((5, 5), np.float32)
    kernel[2, 2], kernel[2, 4], kernel[0, 2] = 0.5, 0.3, 0.2
    found = blur.convolve(image, kernel)
    # A weight right of the middle moves the image to the right, one above moves it up
    right = np.concatenate([image[:, 1::-1], image[:, :-2]], axis=1)
    up = np.concatenate([image[2:], image[:-3:-1]], axis=0)
    assert_allclose(found, 0.5 * image + 0.3 * right + 0.2 * up, atol=1e-5)


@pytest.mark.parametrize("model", ["linear_motion_blur", "camera_shake"])
def test_constant_image_stays_constant_under_blur(model: str) -> None:
    settings = STILL_SHAKE if model == "camera_shake" else SETTINGS[model]
    degraded = degrade(flat(0.4, 40), settings, np.random.default_rng(0))
    assert_allclose(degraded, 0.4, atol=1e-5 if model == "linear_motion_blur" else STEP)


def test_linear_blur_of_a_point_is_the_kernel() -> None:
    settings = LinearMotionBlur("linear_motion_blur", (9, 9), (0, 0))
    image = np.zeros((33, 33, 3), np.float32)
    image[16, 16] = 1
    degraded = degrade(image, settings, np.random.default_rng(0))
    assert_allclose(degraded[16, 13:20], 1 / 9, atol=0.01)
    assert_allclose(degraded[16, [10, 22]], 0, atol=1e-5)
    assert_allclose(degraded[15], 0, atol=1e-5)


def test_shake_averages_linear_light() -> None:
    image = flat(0, 128)
    # Stripes much finer than the path: half of linear 0.5, not half of the coded value
    image[:, ::2] = coded(0.5)
    image[:, :, :] = np.maximum(image, image.transpose(1, 0, 2))
    degraded = degrade(image, STILL_SHAKE, np.random.default_rng(0))
    assert degraded[32:-32, 32:-32].mean() == pytest.approx(coded(0.375), abs=0.01)


def test_exposure_gain_multiplies_linear_light() -> None:
    settings = dataclasses.replace(STILL_SHAKE, exposure_gain=(2, 2))
    degraded = degrade(flat(coded(0.2)), settings, np.random.default_rng(0))
    assert_allclose(degraded, coded(0.4), atol=STEP)
    assert_allclose(degrade(flat(coded(0.6)), settings, np.random.default_rng(0)), 1, atol=STEP)


def test_highlights_are_expanded_only_near_white() -> None:
    linear = np.array([0, 0.5, 0.95, 0.975, 1], np.float32)
    # At 0.975, halfway from 0.95 to 1: 0.975 (1 + 0.5^2)
    assert_allclose(blur.expand_highlights(linear), [0, 0.5, 0.95, 1.21875, 2], rtol=1e-4)


def test_shaken_highlights_clip_after_the_blur() -> None:
    image = flat(0, 96)
    image[:, :48] = 1
    degraded = degrade(image, STILL_SHAKE, np.random.default_rng(0))[..., 0]
    assert_allclose(degraded[:, :30], 1, atol=STEP)
    assert_allclose(degraded[:, 66:], 0, atol=3 * STEP)
    # White is twice as bright as a clean file shows, so a pixel that saw it for half of the
    # exposure is still white; the blurred edge keeps the kernel's mean, hence moves to the dark
    kernel = blur.motion_kernel(_path_of(STILL_SHAKE, seed=0))
    radius = kernel.shape[0] // 2
    seen = np.cumsum(kernel.sum(axis=0)[::-1])[::-1]  # share of the exposure on the white side
    columns = np.arange(48 - radius, 48 + radius)
    expected = np.minimum(1, 2 * seen[columns - 48 + radius + 1])
    found = camera.srgb_to_linear(degraded[20:-20]).mean(axis=0)[columns]
    assert_allclose(found, expected, atol=0.03)
    assert (found > 0.99).sum() > (seen > 0.99).sum()


def _path_of(settings: CameraShake, seed: int) -> NDArray[np.float64]:
    """Return the path that ``camera_shake`` draws after its five settings."""
    generator = np.random.default_rng(seed)
    generator.uniform(size=5)
    return blur.shake_path(settings.extent_pixels[0], generator)


def test_shake_noise_spares_saturated_light() -> None:
    settings = dataclasses.replace(STILL_SHAKE, shot_noise=(0.001, 0.001))
    assert_allclose(degrade(flat(1.0), settings, np.random.default_rng(0)), 1)
    grey = camera.srgb_to_linear(degrade(flat(coded(0.3)), settings, np.random.default_rng(0)))
    # Luma of three independent channels survives JPEG's halved chroma: measure it
    luma = grey @ np.array([0.299, 0.587, 0.114], np.float32)
    share = np.sqrt(0.299**2 + 0.587**2 + 0.114**2)
    assert luma.std() == pytest.approx(share * np.sqrt(0.001 * 0.3), rel=0.1)
