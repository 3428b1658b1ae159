"""Rain and blur, against numbers from outside the code."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config.degradations import (
    CameraShake,
    LinearMotionBlur,
    RainStreaks,
)
from pipeline.degradations import blur, camera, degrade, rain
from tests.degradations.test_degradations import (
    CLEAR_RAIN,
    STEP,
    STILL_CAMERA,
    STILL_SHAKE,
    angle_from_vertical,
    coded,
    flat,
    kernel_moments,
    texture,
)

STILL_LINE = LinearMotionBlur("linear_motion_blur", (5, 20), (0, 0), (0, 0), (0, 0))

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
    quiet = {"camera_shake": STILL_SHAKE, "linear_motion_blur": STILL_LINE}
    settings = dataclasses.replace(quiet[model], defocus_pixels=(1, 3))
    degraded = degrade(flat(0.4, 40), settings, np.random.default_rng(0))
    assert_allclose(degraded, 0.4, atol=1e-5 if model == "linear_motion_blur" else STEP)


def test_out_of_focus_is_the_mean_over_a_disc() -> None:
    point = np.ones((1, 1), np.float32)
    generator = np.random.default_rng(0)
    for radius in (0.01, 0.3, 1, 1.7, 2.5, 6):
        kernel = blur.out_of_focus(point, radius)
        # light that falls anywhere on the disc, counted by pixel
        places = generator.uniform(-radius, radius, (400_000, 2))
        places = places[np.hypot(*places.T) <= radius]
        reach = len(kernel) // 2
        edges = np.arange(-reach, reach + 2) - 0.5
        counted, _, _ = np.histogram2d(*places.T, bins=[edges, edges])
        assert_allclose(kernel, counted / len(places), atol=0.005)
    assert_array_equal(blur.out_of_focus(point, 0), point)


def test_white_noise_of_a_line_has_its_sigma() -> None:
    settings = dataclasses.replace(STILL_LINE, noise_sigma_255=(10, 10))
    degraded = degrade(flat(0.5, 128), settings, np.random.default_rng(0))
    assert degraded.std() == pytest.approx(10 / 255, rel=0.02)


def test_linear_blur_of_a_point_is_the_kernel() -> None:
    settings = dataclasses.replace(STILL_LINE, length_pixels=(9, 9))
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
    """Return the path that ``camera_shake`` draws after its six settings."""
    generator = np.random.default_rng(seed)
    generator.uniform(size=6)
    return blur.shake_path(settings.extent_pixels[0], generator)


def test_shake_noise_spares_saturated_light_and_is_that_of_the_camera() -> None:
    settings = dataclasses.replace(STILL_SHAKE, shot_noise=0.001, iso_gain=(2, 2))
    assert_allclose(degrade(flat(1.0), settings, np.random.default_rng(0)), 1)
    same = dataclasses.replace(STILL_CAMERA, shot_noise=0.001, iso_gain=(2, 2))
    shaken, still = (
        camera.srgb_to_linear(degrade(flat(coded(0.3), 128), model, np.random.default_rng(0)))
        for model in (settings, same)
    )
    assert shaken.std() == pytest.approx(still.std(), rel=0.05)
