"""What the report reads must be there, whole, and of one run."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import Params
from pipeline.report.collect import collect
from pipeline.report.page import write_report
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import DEGRADED, Run, task_images
from tests.report import test_report
from tests.report.test_report import ADAPTED_PSNR, IMAGES, OUT, TASK, VANILLA_PSNR

composed = test_report.composed
params = test_report.params


@pytest.mark.parametrize(
    "path",
    [
        Run(TASK, DEGRADED).evaluation / "per_image.csv",
        Run(TASK, "vanilla", 0).evaluation / "per_image.csv",
        Run(TASK, "noise_space", 0).evaluation / "restored.h5",
        Run(TASK, "vanilla", 0).training / "log.csv",
        Run(TASK, "vanilla", 0).training / "model.safetensors",
        task_images(TASK) / "test.h5",
    ],
    ids=str,
)
def test_a_missing_input_is_named(params: Params, path: Path) -> None:
    path.unlink()
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}.*dvc repro"):
        write_report(params, OUT)


def test_a_damaged_model_is_named(params: Params) -> None:
    (Run(TASK, "vanilla", 0).training / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"vanilla-0/model\.safetensors: damaged"):
        collect(params)


@pytest.mark.parametrize(("name", "value"), [("steps", 5), ("method", "other"), ("seed", 3)])
def test_a_model_of_other_settings_is_refused(params: Params, name: str, value: Any) -> None:
    test_report.write_model(params, Run(TASK, "vanilla", 0), **{name: value})
    with pytest.raises(UserError, match=f"trained with {name} = {value!r}.*dvc repro"):
        collect(params)


def test_protocols_are_never_mixed(params: Params) -> None:
    test_report.write_scores(Run(TASK, "noise_space", 0), ADAPTED_PSNR, protocol="rgb")
    with pytest.raises(UserError, match="protocols rgb and sidd, which cannot be compared"):
        collect(params)


def test_scores_of_other_images_are_refused(params: Params) -> None:
    test_report.write_scores(Run(TASK, "vanilla", 0), VANILLA_PSNR, images=("x", *IMAGES[1:]))
    with pytest.raises(UserError, match="lists other images"):
        collect(params)
