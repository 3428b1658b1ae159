"""Metrics against the authors' numbers, scikit-image, a brute-force SSIM and arithmetic by hand."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from skimage import metrics as skimage_metrics

from pipeline.evaluation.metrics import PROTOCOLS, score
from pipeline.images.pixels import to_uint8
from pipeline.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "metrics.npz"

Image = NDArray[np.float32]

# its functions have no annotations
scikit_image: Any = skimage_metrics


def flat(red: float, green: float, blue: float, side: int = 16) -> Image:
    """Return an image of one colour, levels from 0 to 255."""
    return np.full((side, side, 3), np.array([red, green, blue]) / 255, dtype=np.float32)


def random_pair(height: int, width: int) -> tuple[Image, Image]:
    """Return a restored image that leaves [0, 1] and a clean one, with related channels."""
    generator = np.random.default_rng(7)
    base = generator.random((height, width, 1))
    clean = 0.6 * base + 0.4 * generator.random((height, width, 3))
    restored = 0.9 * clean + 0.15 * generator.standard_normal(clean.shape)
    assert restored.min() < 0
    assert restored.max() > 1
    return restored.astype(np.float32), clean.astype(np.float32)


def brute_force_ssim(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    window: NDArray[np.float64],
    peak: float,
    variance_factor: float = 1,
) -> float:
    """Return the mean SSIM over all places where the window fits, from centred moments."""
    axes = tuple(range(-window.ndim, 0))
    xs, ys = (sliding_window_view(image, window.shape) for image in (x, y))
    mean_x = (xs * window).sum(axes, keepdims=True)
    mean_y = (ys * window).sum(axes, keepdims=True)
    variance_x = variance_factor * (window * (xs - mean_x) ** 2).sum(axes)
    variance_y = variance_factor * (window * (ys - mean_y) ** 2).sum(axes)
    covariance = variance_factor * (window * (xs - mean_x) * (ys - mean_y)).sum(axes)
    mean_x, mean_y = mean_x.reshape(covariance.shape), mean_y.reshape(covariance.shape)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float((luminance * structure).mean())


def eight_bit(image: Image) -> NDArray[np.float64]:
    """Return clamped and rounded levels."""
    return np.round(255 * image.astype(np.float64).clip(0, 1))


def gaussian_window(dimensions: int) -> NDArray[np.float64]:
    """Return an 11-wide Gaussian of sigma 1.5 from the distance to its centre."""
    squared = sum((grid - 5.0) ** 2 for grid in np.indices((11,) * dimensions))
    window = np.exp(-squared / (2 * 1.5**2))
    return np.asarray(window / window.sum())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("index", [0, 1])
def test_agrees_with_the_authors_code(protocol: str, index: int) -> None:
    with np.load(GOLDEN) as golden:
        restored = golden[f"restored_{index}"].astype(np.float32) / 255
        clean = golden[f"clean_{index}"].astype(np.float32) / 255
        psnr = float(golden[f"{protocol}_psnr_{index}"])
        ssim = float(golden[f"{protocol}_ssim_{index}"])
    found = score(restored, clean, protocol)
    assert found.psnr == pytest.approx(psnr, abs=1e-4)
    assert found.ssim == pytest.approx(ssim, abs=1e-5)


def test_sidd_ssim_is_that_of_a_volume() -> None:
    restored, clean = random_pair(12, 13)
    x, y = (
        np.pad(image.clip(0, 1).astype(np.float64), 5, mode="edge") for image in (restored, clean)
    )
    expected = brute_force_ssim(x, y, gaussian_window(3), peak=1)
    assert score(restored, clean, "sidd").ssim == pytest.approx(expected, abs=1e-10)


def test_y_ssim_is_that_of_luma_where_the_window_fits() -> None:
    restored, clean = random_pair(14, 19)
    x, y = (
        16 + (65.481 * image[..., 0] + 128.553 * image[..., 1] + 24.966 * image[..., 2]) / 255
        for image in (eight_bit(restored), eight_bit(clean))
    )
    expected = brute_force_ssim(x, y, gaussian_window(2), peak=255)
    assert score(restored, clean, "y").ssim == pytest.approx(expected, abs=1e-10)


def test_rgb_ssim_is_the_mean_over_channels_of_a_uniform_window() -> None:
    restored, clean = random_pair(9, 12)
    x, y = eight_bit(restored), eight_bit(clean)
    window = np.full((7, 7), 1 / 49)
    # scikit-image's default is the sample variance, n / (n - 1)
    channels = [
        brute_force_ssim(x[..., c], y[..., c], window, 255, variance_factor=49 / 48)
        for c in range(3)
    ]
    expected = float(np.mean(channels))
    assert score(restored, clean, "rgb").ssim == pytest.approx(expected, abs=1e-10)


def test_rgb_equals_scikit_image_on_8_bit_images() -> None:
    restored, clean = random_pair(31, 24)
    x, y = to_uint8(restored), to_uint8(clean)
    psnr = scikit_image.peak_signal_noise_ratio(y, x, data_range=255)
    ssim = scikit_image.structural_similarity(y, x, channel_axis=-1)
    found = score(restored, clean, "rgb")
    assert (found.psnr, found.ssim) == pytest.approx((psnr, ssim), abs=1e-10)


@pytest.mark.parametrize("levels", [1, 5, 51])
@pytest.mark.parametrize(
    ("protocol", "luma_per_level"), [("sidd", 1), ("rgb", 1), ("y", (235 - 16) / 255)]
)
def test_psnr_of_a_constant_error(protocol: str, luma_per_level: float, levels: int) -> None:
    found = score(flat(*3 * [100 + levels]), flat(100, 100, 100), protocol)
    assert found.psnr == pytest.approx(20 * math.log10(255 / (levels * luma_per_level)), abs=1e-4)


@pytest.mark.parametrize(
    ("protocol", "restored", "clean", "peak"),
    [
        ("sidd", 51 / 255, 204 / 255, 1),
        ("rgb", 51, 204, 255),
        ("y", 16 + 51 * 219 / 255, 16 + 204 * 219 / 255, 255),
    ],
)
def test_ssim_of_two_flat_images(protocol: str, restored: float, clean: float, peak: float) -> None:
    c1 = (0.01 * peak) ** 2
    expected = (2 * restored * clean + c1) / (restored**2 + clean**2 + c1)
    found = score(flat(51, 51, 51), flat(204, 204, 204), protocol)
    assert found.ssim == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("colour", "luma"),
    [((255, 0, 0), 65.481), ((0, 255, 0), 128.553), ((0, 0, 255), 24.966)],
    ids=["red", "green", "blue"],
)
def test_luma_weights_in_rgb_order(colour: tuple[int, int, int], luma: float) -> None:
    found = score(flat(*colour), flat(0, 0, 0), "y")
    assert found.psnr == pytest.approx(20 * math.log10(255 / luma), abs=1e-10)


def test_an_error_in_red_weighs_more_than_one_in_blue() -> None:
    clean = flat(100, 100, 100)
    red, blue = score(flat(130, 100, 100), clean, "y"), score(flat(100, 100, 130), clean, "y")
    assert blue.psnr - red.psnr == pytest.approx(20 * math.log10(65.481 / 24.966), abs=1e-10)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_overshoot_is_clamped_and_does_not_wrap_round(protocol: str) -> None:
    clean = np.zeros((16, 16, 3), dtype=np.float32)
    clean[:8] = 1
    restored = np.where(clean == 1, np.float32(1.3), np.float32(-0.2))
    found = score(restored, clean, protocol)
    assert found.psnr == math.inf
    assert found.ssim == pytest.approx(1, abs=1e-12)


def test_only_sidd_keeps_fractions_of_a_level() -> None:
    restored, clean = flat(100.4, 100.4, 100.4), flat(100, 100, 100)
    expected = 20 * math.log10(255 / 0.4)
    assert score(restored, clean, "sidd").psnr == pytest.approx(expected, abs=1e-3)
    assert score(restored, clean, "rgb").psnr == math.inf
    assert score(restored, clean, "y").psnr == math.inf


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_order_in_memory_changes_no_digit(protocol: str) -> None:
    restored, clean = random_pair(250, 330)
    planes = np.moveaxis(np.ascontiguousarray(np.moveaxis(restored, -1, 0)), 0, -1)
    assert score(planes, clean, protocol) == score(restored, clean, protocol)
    assert score(np.asfortranarray(restored), clean, protocol) == score(restored, clean, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_leaves_its_arguments_alone_and_repeats(protocol: str) -> None:
    restored, clean = random_pair(16, 17)
    before = restored.copy(), clean.copy()
    assert score(restored, clean, protocol) == score(restored, clean, protocol)
    np.testing.assert_array_equal(restored, before[0])
    np.testing.assert_array_equal(clean, before[1])


@pytest.mark.parametrize(("protocol", "side"), [("sidd", 1), ("y", 11), ("rgb", 7)])
def test_smallest_image(protocol: str, side: int) -> None:
    clean = np.full((side, side + 3, 3), 0.5, dtype=np.float32)
    assert score(clean, clean, protocol).ssim == pytest.approx(1)
    if side > 1:
        narrow = clean[:, : side - 1]
        with pytest.raises(UserError, match=rf"{side - 1}x{side} pixels.*at least {side}"):
            score(narrow, narrow, protocol)


def test_unknown_protocol() -> None:
    image = flat(1, 2, 3)
    with pytest.raises(ValueError, match=r"'SIDD'.*sidd, y, rgb"):
        score(image, image, "SIDD")


def test_images_of_different_shape() -> None:
    with pytest.raises(ValueError, match=r"restored is \(16, 16, 3\), clean is \(17, 17, 3\)"):
        score(flat(1, 2, 3), flat(1, 2, 3, side=17), "rgb")


@pytest.mark.parametrize("shape", [(16, 16), (3, 16, 16), (16, 16, 4), (1, 16, 16, 3), (0, 16, 3)])
def test_shape_of_no_rgb_image(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, dtype=np.float32)
    with pytest.raises(ValueError, match=r"restored is .*expected \(height, width, 3\)"):
        score(image, image, "rgb")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(protocol: str, value: float) -> None:
    clean = flat(1, 2, 3)
    restored = clean.copy()
    restored[3, 4, 1] = value
    with pytest.raises(ValueError, match="restored has 1 of 768 values that are not finite"):
        score(restored, clean, protocol)
    with pytest.raises(ValueError, match="clean has 1 of 768"):
        score(clean, restored, protocol)


def test_images_on_a_scale_of_255() -> None:
    image = flat(10, 20, 30)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        score(image, image * 255, "sidd")
    with pytest.raises(ValueError, match="restored is uint8"):
        score(to_uint8(image), image, "sidd")  # type: ignore[arg-type]


def test_to_uint8_clamps_then_rounds() -> None:
    levels = np.array([-40, -0.6, 0.4, 0.6, 99.4, 99.6, 254.6, 255.4, 256, 331.5])
    found = to_uint8((levels / 255).astype(np.float32))
    assert found.dtype == np.uint8
    assert found.tolist() == [0, 0, 0, 1, 99, 100, 255, 255, 255, 255]


def test_to_uint8_keeps_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(levels.astype(np.float32) / np.float32(255)), levels)


def test_to_uint8_refuses_what_has_no_level() -> None:
    with pytest.raises(ValueError, match="finite"):
        to_uint8(np.array([0.5, math.nan]))
    with pytest.raises(ValueError, match="found uint8"):
        to_uint8(np.array([1, 2], dtype=np.uint8))


def test_import_brings_in_no_heavy_package() -> None:
    code = (
        "import sys, pipeline.evaluation.metrics, pipeline.report.statistics;"
        "print(*{'torch', 'matplotlib'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == []
