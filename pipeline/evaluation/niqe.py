"""Image quality without a truth: NIQE, how far an image's statistics are from those of clean ones.

A. Mittal, R. Soundararajan, A. C. Bovik: Making a "Completely Blind" Image Quality Analyzer, 2013.
The published model was fitted on photographs that are not ours to hand on; here it is fitted on
clean photographs of the user's own. So only numbers of one fit can be compared. It knows no truth:
texture that a network made up scores as well as texture that was there.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import gamma

from pipeline.images.pixels import Image, as_float
from pipeline.images.store import ImageStore
from pipeline.runtime.errors import UserError

Values = NDArray[np.float64]

PATCH = 96
"""Pixels of a side, half of it at half the size."""
SHARPNESS = 0.75
"""Of the sharpest patch of an image: patches below it are not fitted on (T in the paper)."""
FEATURES = 36
FEWEST_PATCHES = 2 * FEATURES
"""A covariance of fewer says little."""
LUMA = np.array([0.298936, 0.587043, 0.114021])
"""Of RGB, as MATLAB's rgb2gray."""
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Right, below, and both diagonals."""
SHAPES = np.arange(0.2, 10, 0.001)
_RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))
_GAUSSIAN = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
_GAUSSIAN /= _GAUSSIAN.sum()
_HALF = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
"""MATLAB's bicubic kernel stretched to twice its width (imresize with antialiasing)."""
LARGEST_SIDE = 1920
"""Pixels of the middle of a photograph that are looked at: 20 x 20 patches."""
FITTED_IMAGES, FITTED_SIDE = 125, 960
"""At most so many of a store are fitted on, as many as by the authors, and so much of each."""


@dataclass(frozen=True)
class Natural:
    """Mean (36,) and covariance (36, 36) of the features of clean photographs' sharp patches."""

    mean: Values
    covariance: Values


def fit(images: Iterable[Image]) -> Natural:
    """Return the model of clean photographs, each (height, width, 3) in [0, 1].

    Raises:
        UserError: they have fewer than FEWEST_PATCHES sharp patches.
    """
    found = [np.empty((0, FEATURES))]
    for image in images:
        features, sharpness = _features(image)
        found.append(features[sharpness >= SHARPNESS * sharpness.max(initial=0)])
    kept = np.concatenate(found)
    kept = kept[np.isfinite(kept).all(axis=1)]
    if len(kept) < FEWEST_PATCHES:
        raise UserError(
            f"NIQE: {len(kept)} sharp patches of {PATCH} pixels in the clean photographs, expected"
            f" at least {FEWEST_PATCHES}; give more or larger ones"
        )
    return Natural(kept.mean(axis=0), np.cov(kept, rowvar=False))


def fit_store(store: ImageStore) -> Natural | str:
    """Return the model of a store's clean images, evenly chosen, or in words why there is none."""
    clean = [index for index in range(len(store)) if store.has("clean", index)]
    count = min(FITTED_IMAGES, len(clean))
    chosen = np.linspace(0, len(clean) - 1, count, dtype=int)
    try:
        return fit(middle(as_float(store.image("clean", clean[place])), FITTED_SIDE)
                   for place in chosen)  # fmt: skip
    except UserError as error:
        return str(error).removeprefix("NIQE: ")


def middle(image: Image, side: int = LARGEST_SIDE) -> Image:
    """Return the middle of an image (height, width, 3), at most ``side`` pixels high and wide."""
    top, left = (max(0, size - side) // 2 for size in image.shape[:2])
    return image[top : top + side, left : left + side]


def niqe(image: Image, natural: Natural) -> float | None:
    """Return the distance of an image (height, width, 3) in [0, 1] from clean ones, 0 or more.

    ((m - n)' ((C + D) / 2)^-1 (m - n))^0.5 with the means m, n and covariances C, D of the patches
    of the image and of the model. None if fewer than two patches fit into it.
    """
    features, _ = _features(image)
    features = features[np.isfinite(features).all(axis=1)]
    if len(features) < 2:
        return None
    apart = features.mean(axis=0) - natural.mean
    covariance = (np.cov(features, rowvar=False) + natural.covariance) / 2
    return float(np.sqrt(max(apart @ np.linalg.pinv(covariance) @ apart, 0)))


def _features(image: Image) -> tuple[Values, Values]:
    """Return the features (patches, 36) of an image, and each patch's sharpness (patches,)."""
    height, width = (side - side % PATCH for side in image.shape[:2])
    luma = np.rint(np.rint(np.clip(image[:height, :width], 0, 1) * 255.0) @ LUMA)
    if not luma.size:
        return np.empty((0, FEATURES)), np.empty(0)
    normalized, deviation = _normalized(luma)
    half = correlate1d(correlate1d(luma, _HALF, 0, origin=-1), _HALF, 1, origin=-1)[::2, ::2]
    both = [_patch_features(_patches(normalized, PATCH)),
            _patch_features(_patches(_normalized(half)[0], PATCH // 2))]  # fmt: skip
    return np.concatenate(both, axis=1), _patches(deviation, PATCH).mean(axis=(1, 2))


def _normalized(luma: Values) -> tuple[Values, Values]:
    """Return an image less its local mean over its local deviation plus 1, and the deviation."""

    def local(values: Values) -> Values:
        once = correlate1d(values, _GAUSSIAN, axis=0, mode="nearest")
        twice: Values = correlate1d(once, _GAUSSIAN, axis=1, mode="nearest")
        return twice

    mean = local(luma)
    deviation = np.sqrt(np.abs(local(luma * luma) - mean * mean))
    return (luma - mean) / (deviation + 1), deviation


def _patches(values: Values, side: int) -> Values:
    """Return an image as patches side by side, (patches, side, side)."""
    tiles = sliding_window_view(values, (side, side))[::side, ::side]
    return tiles.reshape(-1, side, side)


def _patch_features(patches: Values) -> Values:
    """Return 18 numbers of each patch (the paper's section 2.2): of values, of their products."""
    shape, left, right = _asymmetric(patches)
    found = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = _asymmetric(patches * np.roll(patches, shift, axis=(1, 2)))
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return np.stack(found, axis=1)


def _asymmetric(patches: Values) -> tuple[Values, Values, Values]:
    """Fit an asymmetric generalized Gaussian to each patch; return shape, left and right scale."""
    values = patches.reshape(len(patches), -1)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a flat patch, which is left out
        left, right = (np.sqrt((values**2).sum(axis=1, where=side) / side.sum(axis=1))
                       for side in (values < 0, values > 0))  # fmt: skip
        skew = left / right
        ratio = np.abs(values).mean(axis=1) ** 2 / (values**2).mean(axis=1)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    place = np.searchsorted(_RATIOS, ratio).clip(1, len(SHAPES) - 1)
    place -= ratio - _RATIOS[place - 1] < _RATIOS[place] - ratio
    shape = SHAPES[place]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale
