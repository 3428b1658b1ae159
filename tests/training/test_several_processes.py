"""Two processes over gloo equal one: compiled, with checkpointing, with the paper's batch.

Ranks of a GPU machine do the same through NCCL; the plain case is in test_training.py.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.models.weights import load_tensors
from pipeline.runtime.paths import MODEL_FILE
from pipeline.training.loop import train
from tests.helpers.training_job import NOISE_SPACE, ROOT, TRAIN, job, write_images

EVEN = {"margin": 5.0, "denoiser": {"dropout": 0.0}}
"""The hinge linear and no masks: then halves add up to the whole, see test_training.py."""
STEPS = {"steps": 4, "log_every_steps": 2, "validate_every_steps": 2}


@pytest.mark.slow  # each starts processes; the plain case is fast
@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_checkpointing": True},
        {"compile": True},
        {"compile": True, "gradient_checkpointing": True},
        {"batch": 192, "accumulate": 4},
    ],
    ids=["checkpointing", "compiled", "compiled and checkpointing", "batch of 192"],
)
def test_two_processes_equal_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    write_images(tmp_path / "images")
    settings: dict[str, Any] = {"batch": 4, **STEPS, **changes}
    method = replace(NOISE_SPACE, margin=5.0, denoiser=replace(NOISE_SPACE.denoiser, dropout=0.0))
    alone = replace(TRAIN, **{**settings, "compile": False})
    train(job(tmp_path / "images", tmp_path / "one", method, train=alone, last_step=4))
    given = {
        "images": str(tmp_path / "images"), "folder": str(tmp_path / "two"), "method": EVEN,
        "train": {**settings, "devices": 2}, "last_step": 4,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.training_job", json.dumps(given)],
        cwd=ROOT, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    if "BackendCompilerFailed" in done.stderr or "InvalidCxxCompiler" in done.stderr:
        pytest.skip("torch.compile finds no compiler here")
    assert done.returncode == 0, done.stderr
    whole, _ = load_tensors(tmp_path / "one" / MODEL_FILE)
    found, facts = load_tensors(tmp_path / "two" / MODEL_FILE)
    assert facts["train"]["devices"] == 2 and facts["train"]["batch"] == settings["batch"]
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-6)
