"""NIQE against deepinv's, which follows the authors' MATLAB code, and against what must be so."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data

from pipeline.evaluation.niqe import Natural, fit, niqe
from pipeline.runtime.errors import UserError

Values = NDArray[Any]


def crops() -> Iterator[Values]:
    for image in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket()):
        for top in (0, 90):
            for left in (0, 40, 80, 120, 150):
                yield image[top : top + 200, left : left + 290]


@pytest.fixture(scope="module")
def natural() -> Natural:
    return fit(crop.astype(np.float32) / 255 for crop in crops())


def changed() -> dict[str, Values]:
    image = data.astronaut()[100:400, 100:400]
    noise = np.random.default_rng(0).normal(0, 20, image.shape)
    return {
        "as it is": image,
        "noise": np.clip(np.rint(image + noise), 0, 255).astype(np.uint8),
        "blur": gaussian_filter(image, (2, 2, 0)),
    }


def test_noise_and_blur_are_further_from_clean_photographs(natural: Natural) -> None:
    found = {name: niqe(image / 255, natural) for name, image in changed().items()}
    assert found["as it is"] is not None and found["as it is"] < 8
    assert all(found[name] > 1.8 * found["as it is"] for name in ("noise", "blur"))


def test_it_is_what_deepinv_measures(natural: Natural) -> None:
    """Within 3 %: deepinv fits in float32, and the covariance is inverted."""
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("deepinv.loss.metric.perceptual").NIQE(
        weights_path=None, round_tensor=True, dtype=torch.float64
    )
    images = [torch.from_numpy(crop).permute(2, 0, 1).double() for crop in crops()]
    mean, covariance = reference.create_weights(images)
    np.testing.assert_allclose(natural.mean, mean, atol=0.002)
    np.testing.assert_allclose(natural.covariance, covariance, atol=0.002)
    reference.mu_p, reference.cov_p = mean.double(), covariance.double()
    for image in changed().values():
        expected = reference(torch.from_numpy(image).permute(2, 0, 1)[None].double())
        assert niqe(image / 255, natural) == pytest.approx(float(expected), rel=0.03)


def test_what_is_too_small_or_too_few(natural: Natural) -> None:
    assert niqe(np.zeros((95, 400, 3)), natural) is None
    assert niqe(np.zeros((192, 192, 3)), natural) is None, "flat patches have no statistics"
    with pytest.raises(UserError, match=r"NIQE: \d+ sharp patches .* expected at least 72"):
        fit([data.astronaut() / 255])
