"""Image quality under a named protocol: PSNR and SSIM.

Published numbers differ by whole decibels because of unspoken choices: rounded or not, RGB or
luma, which window. A protocol fixes them all; scores of different protocols are never compared.

========  ==================================  =================================================
protocol  values compared                     SSIM window
========  ==================================  =================================================
sidd      RGB, clamped, not rounded, peak 1   Gaussian volume 11x11x11, replicated at the edges
y         luma of 8-bit RGB, peak 255         Gaussian 11x11, only where it fits into the image
rgb       8-bit RGB, peak 255                 uniform 7x7 per channel, only where it fits
========  ==================================  =================================================
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from pipeline.images.pixels import to_uint8
from pipeline.runtime.errors import UserError

Image = NDArray[np.floating]
Values = NDArray[np.float64]

# Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli: Image quality assessment, 2004
SSIM_K1 = 0.01
SSIM_K2 = 0.03
SSIM_SIGMA_PIXELS = 1.5
SSIM_RADIUS_PIXELS = 5

# ITU-R BT.601 luma of 8-bit RGB, as MATLAB's rgb2ycbcr
LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255
LUMA_OFFSET = 16.0

PERFECT_PSNR = 100.0
"""Written where the restored image equals the clean one, whose PSNR is infinite."""

# scikit-image's function has no annotations
_structural_similarity: Callable[..., np.floating] = structural_similarity


@dataclass(frozen=True)
class Protocol:
    """One way to score an image.

    ``prepare`` turns a float image into the values that are compared, on a scale of 0 to
    ``peak``; ``ssim`` compares two of those and needs ``smallest_side`` pixels on both sides.
    """

    prepare: Callable[[Image], Values]
    peak: float
    ssim: Callable[[Values, Values], float]
    smallest_side: int


@dataclass(frozen=True)
class Score:
    """Quality of one restored image: ``psnr`` in dB (infinite if equal), ``ssim`` at most 1."""

    psnr: float
    ssim: float


def score(restored: Image, clean: Image, protocol: str) -> Score:
    """Return PSNR in dB and SSIM of a restored image against the clean one.

    PSNR = 10 log10(peak^2 / mean((restored - clean)^2)) over all values that the protocol
    compares. It is ``math.inf`` where those are all equal, and so has no finite mean with others.
    SSIM = mean of (2 m_r m_c + C1)(2 s_rc + C2) / ((m_r^2 + m_c^2 + C1)(s_r^2 + s_c^2 + C2)),
    with windowed means m, variances s^2, covariance s_rc, C1 = (0.01 peak)^2,
    C2 = (0.03 peak)^2.

    Args:
        restored: (height, width, 3) float RGB; values outside [0, 1] are clamped.
        clean: (height, width, 3) float RGB in [0, 1].
        protocol: a key of ``PROTOCOLS``.

    Raises:
        ValueError: the protocol is unknown, the shapes differ, a value is not finite, or ``clean``
            leaves [0, 1].
        UserError: the image is smaller than the protocol's window.

    Source: the protocol table of this module. The numbers agree with the evaluation code that the
    authors of Noise-DA released (tests/golden/metrics.npz).
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
    rules = PROTOCOLS[protocol]
    _require_image("restored", restored)
    _require_image("clean", clean)
    if restored.shape != clean.shape:
        raise ValueError(f"restored is {restored.shape}, clean is {clean.shape}; expected the same")
    # a reference is never clamped in silence: it is wrong, or on a scale of 255
    if clean.min() < 0 or clean.max() > 1:
        raise ValueError(f"clean has values {clean.min()} to {clean.max()}; expected 0 to 1")
    height, width, _ = clean.shape
    if min(height, width) < rules.smallest_side:
        raise UserError(
            f"image of {width}x{height} pixels: protocol {protocol!r} needs at least"
            f" {rules.smallest_side} on both sides; leave the image out or choose another protocol"
        )
    values, reference = _compared(restored, clean, rules)
    return Score(_psnr(values, reference, rules.peak), rules.ssim(values, reference))


def psnr(restored: Image, clean: Image, protocol: str) -> float:
    """Return the PSNR in dB that ``score`` gives, without the time that SSIM takes."""
    rules = PROTOCOLS[protocol]
    return _psnr(*_compared(restored, clean, rules), rules.peak)


def one_protocol(names: Iterable[str], where: str) -> str:
    """Return the protocol that all scores share.

    Raises:
        UserError: there are several, whose scores cannot be compared; ``where`` says of what.
    """
    found = sorted(set(names))
    if len(found) != 1:
        raise UserError(
            f"{where}: scored under the protocols {' and '.join(found)}, which cannot be"
            " compared; run 'dvc repro'"
        )
    return found[0]


def _require_values(name: str, image: Image) -> None:
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"{name} is {image.dtype}; expected floating-point values in [0, 1]")
    finite = np.isfinite(image)
    if not finite.all():
        count = image.size - np.count_nonzero(finite)
        raise ValueError(f"{name} has {count} of {image.size} values that are not finite numbers")


def _require_image(name: str, image: Image) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"{name} is {image.shape}; expected (height, width, 3)")
    _require_values(name, image)


def _compared(restored: Image, clean: Image, rules: Protocol) -> tuple[Values, Values]:
    # in one memory order: sums of rounded numbers would follow it into the last digit
    restored, clean = np.ascontiguousarray(restored), np.ascontiguousarray(clean)
    return rules.prepare(restored), rules.prepare(clean)


def _clamped(image: Image) -> Values:
    return np.clip(image, 0, 1).astype(np.float64)


def _eight_bit(image: Image) -> Values:
    return to_uint8(image).astype(np.float64)


def _luma(image: Image) -> Values:
    return LUMA_OFFSET + _eight_bit(image) @ LUMA_WEIGHTS


def _psnr(values: Values, reference: Values, peak: float) -> float:
    # written out: importing scikit-image's takes half a second, and it warns on equal images
    error = float(np.mean((values - reference) ** 2))
    return 10 * math.log10(peak**2 / error) if error > 0 else math.inf


def _ssim_luma(values: Values, reference: Values) -> float:
    # sigma 1.5 makes scikit-image's window 11x11; it leaves out the rim where that does not fit
    ssim = _structural_similarity(
        values,
        reference,
        data_range=255,
        gaussian_weights=True,
        sigma=SSIM_SIGMA_PIXELS,
        use_sample_covariance=False,
        K1=SSIM_K1,
        K2=SSIM_K2,
    )
    return float(ssim)


def _ssim_rgb(values: Values, reference: Values) -> float:
    return float(_structural_similarity(values, reference, data_range=255, channel_axis=-1))


def _ssim_volume(values: Values, reference: Values) -> float:
    """Return SSIM as MATLAB's ``ssim`` computes it on (height, width, 3): as one volume."""
    x, y = (np.ascontiguousarray(np.moveaxis(image, -1, 0)) for image in (values, reference))
    mean_x, mean_y = _gaussian_volume(x), _gaussian_volume(y)
    mean_xx, mean_yy, mean_xy = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    # rounding can leave a flat region with a variance just below 0; MATLAB clips it too
    variance_x = np.maximum(_gaussian_volume(x * x) - mean_xx, 0)
    variance_y = np.maximum(_gaussian_volume(y * y) - mean_yy, 0)
    covariance = _gaussian_volume(x * y) - mean_xy
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    similarity = (2 * mean_xy + c1) * (2 * covariance + c2)
    similarity /= (mean_xx + mean_yy + c1) * (variance_x + variance_y + c2)
    return float(similarity.mean())


def _gaussian_volume(volume: Values) -> Values:
    """Return the 11x11x11 Gaussian average of (3, height, width), replicated at all faces."""
    mixed = (_CHANNEL_WEIGHTS @ volume.reshape(3, -1)).reshape(volume.shape)
    mixed = correlate1d(mixed, _GAUSSIAN, axis=1, mode="nearest")
    averaged: Values = correlate1d(mixed, _GAUSSIAN, axis=2, mode="nearest")
    return averaged


def _gaussian_window() -> Values:
    offsets = np.arange(-SSIM_RADIUS_PIXELS, SSIM_RADIUS_PIXELS + 1)
    window: Values = np.exp(-(offsets**2) / (2 * SSIM_SIGMA_PIXELS**2))
    window /= window.sum()
    return window


def _channel_weights() -> Values:
    # with only three planes, most of the window falls on replicas of the first and the last:
    # adding up the weights of each plane's replicas leaves a 3x3 matrix
    weights = np.zeros((3, 3))
    for plane in range(3):
        for offset, weight in enumerate(_GAUSSIAN, start=-SSIM_RADIUS_PIXELS):
            weights[plane, min(max(plane + offset, 0), 2)] += weight
    return weights


_GAUSSIAN = _gaussian_window()
_CHANNEL_WEIGHTS = _channel_weights()

PROTOCOLS: dict[str, Protocol] = {
    "sidd": Protocol(prepare=_clamped, peak=1, ssim=_ssim_volume, smallest_side=1),
    "y": Protocol(prepare=_luma, peak=255, ssim=_ssim_luma, smallest_side=11),
    "rgb": Protocol(prepare=_eight_bit, peak=255, ssim=_ssim_rgb, smallest_side=7),
}
"""Name to protocol. Sources: ``sidd`` is MATLAB's ssim and psnr as used for the SIDD validation
blocks; ``y`` the deraining literature's MATLAB code (SPA-Data); ``rgb`` scikit-image's defaults,
without alignment (RealBlur)."""
