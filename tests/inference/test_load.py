"""The use from Python: arrays in, arrays of the same kind out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pipeline.inference import load
from pipeline.runtime.errors import UserError
from tests.inference.test_restore import save_model


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(37, 53), (37, 53, 1), (37, 53, 3), (90, 21, 3)])
def test_a_model_that_changes_nothing(kind: Any, shape: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    image = generator.random(shape, np.float32)
    if kind != np.float32:
        image = generator.integers(0, np.iinfo(kind).max, shape, endpoint=True).astype(kind)
    restore = load(save_model(tmp_path / "model.safetensors"), precision="fp32", threads=1)
    out = restore(image)
    assert out.dtype == kind and out.shape == image.shape
    assert_array_equal(out, image)
    assert restore.facts["precision"] == "fp32"


def test_a_model_that_adds(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.safetensors", last=0.2)
    restore = load(str(model), tile=32, overlap=8, precision="fp32", threads=1)
    assert (restore(np.full((70, 40), 50, np.uint8)) == 101).all()
    assert (restore(np.full((9, 9, 3), 230, np.uint8)) == 255).all(), "clamped"
    np.testing.assert_allclose(restore(np.full((9, 9, 3), 0.95, np.float32)), 1.15, atol=1e-6)


def test_what_is_no_image_or_model_is_refused(tmp_path: Path) -> None:
    restore = load(save_model(tmp_path / "model.safetensors"), precision="fp32", threads=1)
    for wrong, message in (
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((4, 4), np.int64), "int64 values"),
        (np.full((4, 4), np.nan, np.float32), "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            restore(wrong)  # type: ignore[type-var]
    with pytest.raises(UserError, match="no model"):
        load(tmp_path / "absent")
    with pytest.raises(UserError, match="overlap: found 40"):
        load(tmp_path / "model.safetensors", tile=64, overlap=40)
