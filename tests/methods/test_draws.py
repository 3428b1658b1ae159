"""Draws are made on the device that is asked for; on the processor it is the same by either way."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.methods.method import build_method
from pipeline.models.build import build_restorer
from pipeline.training.loop import train
from tests.helpers.training_job import (
    BASELINES,
    NOISE_SPACE,
    RESTORER,
    TRAIN,
    job,
    results,
    write_images,
)


@pytest.mark.parametrize("name", ["noise_space", *BASELINES])
def test_every_draw_lies_on_the_device(name: str) -> None:
    """The meta device stands for a GPU: a tensor that was made elsewhere would show."""
    settings = {"noise_space": NOISE_SPACE, **BASELINES}[name]
    method = build_method(build_restorer(RESTORER), settings)
    with torch.device("meta"):
        draws = method.draw(None, (2, 3, 16, 16))  # type: ignore[arg-type]
    kinds = {
        value.device.type for value in vars(draws or object).values() if torch.is_tensor(value)
    }
    assert kinds <= {"meta"} and (bool(kinds) or draws is None)


def test_on_the_processor_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    write_images(tmp_path / "images")
    for place in ("cpu", "device"):
        settings = replace(TRAIN, draws_on=place)
        train(job(tmp_path / "images", tmp_path / place, NOISE_SPACE, train=settings))
    assert results(tmp_path / "cpu") == results(tmp_path / "device")
