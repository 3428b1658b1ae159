"""Out of memory in training: one line that says what to set, and the checkpoint is kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.methods.noise_space import NoiseSpace
from pipeline.runtime.errors import UserError
from pipeline.training.loop import train
from pipeline.training.memory import advice, is_out_of_memory, more_shares
from tests.helpers.training_job import BASELINES, NOISE_SPACE, TRAIN, job, results, write_images

GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    write_images(tmp_path / "images")
    return tmp_path / "images"


def test_it_goes_on_with_checkpointing_from_where_memory_ended(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(job(images, tmp_path / "unbroken", NOISE_SPACE))
    forward = NoiseSpace.forward

    def full(self: NoiseSpace, batch: Any, draws: Any, progress: Any) -> Any:
        if progress.step == 6:
            raise torch.OutOfMemoryError(f"{GPU}\nof which some lines tell more")
        return forward(self, batch, draws, progress)

    with monkeypatch.context() as patch:
        patch.setattr(NoiseSpace, "forward", full)
        with pytest.raises(UserError) as ended:
            train(job(images, tmp_path / "lean", NOISE_SPACE))
    said = str(ended.value)
    assert said.startswith("out of memory (last good checkpoint: ") and "\n" not in said
    assert "set train.gradient_checkpointing=true" in said and "train.accumulate=2" in said
    assert said.endswith(GPU)
    lean = replace(TRAIN, gradient_checkpointing=True)
    train(job(images, tmp_path / "lean", NOISE_SPACE, train=lean))
    assert results(tmp_path / "lean") == results(tmp_path / "unbroken")


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_the_same_with_checkpointing(
    images: Path, tmp_path: Path, name: str
) -> None:
    train(job(images, tmp_path / "plain", BASELINES[name]))
    lean = replace(TRAIN, gradient_checkpointing=True)
    train(job(images, tmp_path / "lean", BASELINES[name], train=lean))
    assert results(tmp_path / "lean") == results(tmp_path / "plain")


def test_the_advice_is_what_can_still_be_done() -> None:
    assert more_shares(replace(TRAIN, batch=24, devices=8)) == 3
    assert more_shares(replace(TRAIN, batch=192, devices=8, accumulate=4)) == 6
    least = replace(TRAIN, batch=8, devices=8, gradient_checkpointing=True)
    assert more_shares(least) is None
    assert advice(least) == "a smaller train.patch"


def test_errors_of_memory_are_told_from_others() -> None:
    """The processor's allocator and cuDNN raise plain runtime errors."""
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not is_out_of_memory(RuntimeError("expected scalar type Float but found Double"))
