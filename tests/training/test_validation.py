"""PSNR of fixed crops while training goes on: by hand, resumed, and never a reason for anything."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config.build import ConfigError
from pipeline.images.store import ImageStore, Record, write_store
from pipeline.models.weights import load_tensors
from pipeline.runtime.csv_files import read_csv
from pipeline.runtime.paths import LOG_FILE, SNAPSHOTS_FILE
from pipeline.training.loop import train
from pipeline.training.validation import Validation, snapshot_steps
from tests.helpers.training_job import NOISE_SPACE, TRAIN, VANILLA, job, write_images


def flat(value: int) -> np.ndarray:
    return np.full((9, 10, 3), value, np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    return tmp_path / "images"


@pytest.mark.parametrize("image_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_psnr_by_hand(tmp_path: Path, image_range: tuple[float, float]) -> None:
    records = [
        Record(f"{domain} {n}", "s", domain, 9, 10, lambda v=100 + d: flat(v), lambda: flat(100))
        for domain, values in (("real", (10, 20)), ("synthetic", (5,)))
        for n, d in enumerate(values)
    ]
    write_store(tmp_path / "v.h5", records)
    validation = Validation(ImageStore(tmp_path / "v.h5"), image_range, factor=4)
    scores, crops = validation(nn.Identity(), torch.device("cpu"), "fp32")
    psnr = {d: 20 * math.log10(255 / d) for d in (5, 10, 20)}
    assert scores["psnr_real"] == pytest.approx((psnr[10] + psnr[20]) / 2, abs=1e-4)
    assert scores["psnr_synthetic"] == pytest.approx(psnr[5], abs=1e-4)
    assert crops["real"].shape == (3, 8, 8), "cut to a multiple of 4"
    assert crops["real"].unique().tolist() == [110]


def test_snapshots_begin_and_end_with_the_training() -> None:
    assert snapshot_steps(0, 1000, 100) == {100, 400, 700, 1000}
    assert snapshot_steps(300, 700, 100) == {400, 500, 600, 700}
    assert snapshot_steps(0, 7, 2) == {2, 4, 6, 7}
    assert snapshot_steps(0, 3, 10) == {3}


def test_the_log_grows_and_has_the_scores(images: Path, tmp_path: Path) -> None:
    settings = replace(TRAIN, validate_every_steps=4)
    train(job(images, tmp_path / "run", NOISE_SPACE, train=settings))
    rows = {int(row["step"]): row for row in read_csv(tmp_path / "run" / LOG_FILE)}
    assert [step for step, row in rows.items() if row["psnr_real"]] == [4, 7]
    assert all(row["psnr_synthetic"] for step, row in rows.items() if step in (4, 7))
    crops, _ = load_tensors(tmp_path / "run" / SNAPSHOTS_FILE)
    assert {name for name in crops if name.startswith("real")} == {"real.4", "real.7"}


def test_validating_changes_no_weight(images: Path, tmp_path: Path) -> None:
    """Were a random number drawn or a mode changed by it, the weights would be others."""
    from safetensors.torch import load_file

    for name, every in (("often", 2), ("once", 100)):
        settings = replace(TRAIN, validate_every_steps=every)
        train(job(images, tmp_path / name, NOISE_SPACE, train=settings))
    often, once = (load_file(tmp_path / name / "model.safetensors") for name in ("often", "once"))
    assert all(torch.equal(often[key], once[key]) for key in often)


def test_tensorboard_shows_the_rows(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    train(job(images, tmp_path / "run", VANILLA, train=replace(TRAIN, tensorboard=True)))
    found = reader.EventAccumulator("logs/tensorboard/denoise/any-0")
    found.Reload()
    rows = read_csv(tmp_path / "run" / LOG_FILE)
    shown = {event.step: event.value for event in found.Scalars("total")}
    assert shown == {int(row["step"]): pytest.approx(float(row["total"])) for row in rows}


def test_scores_stand_in_rows_of_the_log(values: dict) -> None:
    from pipeline.config.read import check

    values["train"]["validate_every_steps"] = values["train"]["log_every_steps"] + 1
    with pytest.raises(ConfigError, match=r"validate_every_steps: found .* expected a multiple of"):
        check(values)
