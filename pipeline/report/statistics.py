"""Spread, intervals and paired tests of scores.

Two kinds of spread answer two questions and are never mixed in one number:

- over **seeds**: how much does another training run differ? One number a seed (the mean over its
  images), summarized by ``mean_and_std``.
- over **images**: how much would other photographs change the result? One number an image, of one
  seed or averaged over the seeds image by image, summarized by ``bootstrap_interval`` and
  ``paired_difference``. Scores of several seeds strung together would count each image several
  times and make the interval too narrow.

Blocks cut from one photograph share its scene, light and noise: they are not independent. Give
their scenes as ``groups``; then scenes are resampled, not images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, wilcoxon

# with n pairs the smallest two-sided p-value is 2 / 2^n: 0.0625 for 5, 0.03125 for 6
FEWEST_PAIRS = 6
# resamples drawn at once; bounds the memory to some 10 MiB a thousand images
BOOTSTRAP_BATCH = 500

Values = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedDifference:
    """How much higher method a scores than method b on the same images.

    ``mean`` of a - b over ``images`` images; ``low`` and ``high`` bound its bootstrap interval,
    None where there is one independent unit only; ``p_value`` is of the Wilcoxon signed-rank test,
    None where there are too few units to tell; ``scenes`` is the number of independent units, None
    where each image counted as one.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    images: int
    scenes: int | None


def mean_and_std(values: ArrayLike) -> tuple[float, float | None]:
    """Return mean and sample standard deviation, sqrt(sum (v - mean)^2 / (n - 1)).

    Meant for the spread over seeds. This is the spread of single runs, not the standard error of
    their mean.

    Args:
        values: (n,) finite numbers, such as one mean PSNR a seed.

    Returns:
        Both in the unit of the values. The deviation is None for one value: a single run says
        nothing of the spread, and 0 would claim that there is none.

    Raises:
        ValueError: the values are not a non-empty list of finite numbers.
    """
    checked = _finite("values", values)
    return float(checked.mean()), float(checked.std(ddof=1)) if checked.size > 1 else None


def bootstrap_interval(
    values: ArrayLike,
    samples: int,
    generator: np.random.Generator,
    confidence: float = 0.95,
    groups: Sequence[str] | None = None,
) -> Interval | None:
    """Return the percentile bootstrap interval (low, high) of the mean over images.

    The images are drawn anew, with replacement, ``samples`` times; the interval holds the central
    ``confidence`` of the means. With ``groups`` whole scenes are drawn instead, with all their
    images (cluster bootstrap), and the mean is still that over images:
    sum of all drawn values / number of all drawn values.

    Args:
        values: (images,) finite numbers.
        samples: number of resamples, at least 2; thousands for stable bounds.
        generator: source of the draws; the same state gives the same interval.
        confidence: share of the means inside, in (0, 1).
        groups: (images,) scene of each image; None where each is a photograph of its own.

    Returns:
        Bounds in the unit of the values; None if there is only one image or scene, which says
        nothing of others. With fewer than about ten the bounds are too narrow.

    Raises:
        ValueError: values, groups, samples or confidence are not as above.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; A. C.
    Davison, D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8 (clusters).
    """
    checked = _finite("values", values)
    if samples < 2:
        raise ValueError(f"samples is {samples}; expected 2 or more resamples")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share between 0 and 1")
    sums, counts = _units(checked, groups)
    if sums.size < 2:
        return None
    found = bootstrap(
        (sums, counts),
        _pooled_mean,
        n_resamples=samples,
        batch=BOOTSTRAP_BATCH,
        vectorized=True,
        paired=True,
        confidence_level=confidence,
        method="percentile",
        rng=generator,
    ).confidence_interval
    return float(found.low), float(found.high)


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    samples: int,
    generator: np.random.Generator,
    groups: Sequence[str],
) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of mean(numerators) / mean(denominators).

    Args:
        numerators: (images,) finite numbers.
        denominators: the same, of the same images.
        samples, generator, groups: as in ``bootstrap_interval``; whole scenes are drawn.

    Returns:
        Bounds, without unit; None if there is only one scene, or a resample has no denominator.
    """
    above, _ = _units(_finite("numerators", numerators), groups)
    below, _ = _units(_finite("denominators", denominators), groups)
    if above.size < 2:
        return None
    drawn = generator.integers(above.size, size=(samples, above.size))
    totals = below[drawn].sum(axis=1)
    if (totals <= 0).any():
        return None
    low, high = np.quantile(above[drawn].sum(axis=1) / totals, (0.025, 0.975))
    return float(low), float(high)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    samples: int,
    generator: np.random.Generator,
    confidence: float = 0.95,
    groups: Sequence[str] | None = None,
) -> PairedDifference:
    """Return the mean of a - b over images, its bootstrap interval and the Wilcoxon p-value.

    The p-value is two-sided, of the hypothesis that the differences lie symmetrically about 0; it
    is exact up to 50 pairs (13 if some differences are equally large) and a normal approximation
    above. With ``groups`` it is that of the scenes' mean differences, since the test takes its
    pairs as independent. Pairs without difference have no sign and are left out (Wilcoxon's own
    rule). It is None if fewer than 6 pairs are left, so also if all differences are 0: 5 pairs
    cannot fall below 2 / 2^5 = 0.0625, whatever their values, so that a number would only look
    like evidence against a difference.

    Args:
        a: (images,) finite scores of one method.
        b: (images,) finite scores of another, of the same images in the same order.
        samples, generator, confidence, groups: as in ``bootstrap_interval``.

    Returns:
        Differences in the unit of the scores: above 0 where a is higher.

    Raises:
        ValueError: a and b differ in length, or as ``bootstrap_interval``.

    Source: F. Wilcoxon, Individual comparisons by ranking methods, 1945 (``scipy.stats.wilcoxon``).
    """
    scores_a, scores_b = _finite("a", a), _finite("b", b)
    if scores_a.size != scores_b.size:
        raise ValueError(f"a has {scores_a.size} scores, b has {scores_b.size}; expected pairs")
    differences = scores_a - scores_b
    interval = bootstrap_interval(differences, samples, generator, confidence, groups)
    sums, counts = _units(differences, groups)
    low, high = interval or (None, None)
    return PairedDifference(
        mean=float(differences.mean()),
        low=low,
        high=high,
        p_value=_signed_rank_p_value(sums / counts),
        images=differences.size,
        scenes=None if groups is None else sums.size,
    )


def holm(p_values: ArrayLike) -> Values:
    """Return p-values corrected for their number, by Holm's step-down method.

    Whoever calls a difference real where the corrected p-value is at most alpha, is wrong in any
    of the tests with a probability of at most alpha, however the tests depend on each other. The
    k-th smallest of n p-values is multiplied by n - k + 1, is at least the corrected one before
    it, and at most 1.

    Args:
        p_values: (n,) of n tests, in [0, 1]; 1 for a test that had too little data.

    Returns:
        (n,) corrected p-values in the same order.

    Raises:
        ValueError: the values are not a non-empty list of numbers in [0, 1].

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    checked = _finite("p_values", p_values)
    if checked.min() < 0 or checked.max() > 1:
        raise ValueError(f"p_values has {checked.min()} to {checked.max()}; expected 0 to 1")
    order = np.argsort(checked, kind="stable")
    factors = np.arange(checked.size, 0, -1)
    corrected = np.empty_like(checked)
    corrected[order] = np.minimum(np.maximum.accumulate(checked[order] * factors), 1)
    return corrected


def _finite(name: str, values: ArrayLike) -> Values:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 1 or checked.size == 0:
        raise ValueError(f"{name} has shape {checked.shape}; expected a non-empty list of numbers")
    wrong = np.flatnonzero(~np.isfinite(checked))
    if wrong.size:
        raise ValueError(
            f"{name}[{wrong[0]}] is {checked[wrong[0]]} ({wrong.size} of {checked.size} not"
            " finite); the PSNR of equal images is infinite and has no mean: leave such images out"
        )
    return checked


def _units(values: Values, groups: Sequence[str] | None) -> tuple[Values, Values]:
    """Return sum and number of the values of each independent unit: a scene, or else an image."""
    if groups is None:
        return values, np.ones_like(values)
    if len(groups) != values.size:
        raise ValueError(f"{len(groups)} groups for {values.size} values; expected one for each")
    _, unit = np.unique(np.asarray(groups), return_inverse=True)
    sums: Values = np.bincount(unit, weights=values).astype(np.float64)
    counts: Values = np.bincount(unit).astype(np.float64)
    return sums, counts


def _pooled_mean(sums: Values, counts: Values, axis: int) -> Values:
    mean: Values = sums.sum(axis=axis) / counts.sum(axis=axis)
    return mean


def _signed_rank_p_value(differences: Values) -> float | None:
    nonzero = differences[differences != 0]
    if nonzero.size < FEWEST_PAIRS:
        return None
    return float(wilcoxon(nonzero).pvalue)
