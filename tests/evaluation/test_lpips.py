"""LPIPS with random weights in torchvision's form, against torchmetrics' own way; nothing fetched.

The numbers of the published weights are torchmetrics' own matter; that they are read into the right
places, and what happens without them, is ours.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torchmetrics.functional.image import lpips as reference

from pipeline.config.running import Evaluate
from pipeline.evaluation.evaluate import evaluate, read_table
from pipeline.evaluation.lpips import load_lpips
from pipeline.images.pixels import Image
from pipeline.runtime.files import sha256_of
from pipeline.runtime.paths import DEGRADED, FACTS_FILE, TABLE_FILE, Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def alexnet() -> Any:
    torch.manual_seed(0)
    return torchvision.models.alexnet(weights=None).eval()


@pytest.fixture
def weights(alexnet: Any, tmp_path: Path) -> Path:
    """The network's file, named like torchvision's after the start of its hash."""
    path = tmp_path / "alexnet.pth"
    torch.save(alexnet.state_dict(), path)
    return path.rename(tmp_path / f"alexnet-owt-{sha256_of(path)[:8]}.pth")


def images(number: int, side: int = 64) -> list[Image]:
    generator = np.random.default_rng(number)
    return [generator.random((side, side + 5, 3), dtype=np.float32) for _ in range(2)]


def test_it_is_torchmetrics_own_with_these_weights(
    alexnet: Any, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances = load_lpips(str(weights))
    assert not isinstance(distances, str)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: alexnet)
    restored, clean = images(1), images(2)
    first, second = (
        torch.from_numpy(np.stack(given).transpose(0, 3, 1, 2)) for given in (restored, clean)
    )
    expected = reference.learned_perceptual_image_patch_similarity(
        first, second, "alex", reduction="none", normalize=True
    )
    assert distances(restored, clean) == pytest.approx(expected.tolist(), rel=1e-5)
    assert min(distances(restored, clean)) > 0.01
    assert distances(clean, clean) == [0.0, 0.0]
    beyond = [image * 3 - 1 for image in restored]
    assert distances(beyond, clean) == distances([image.clip(0, 1) for image in beyond], clean)


def test_without_the_right_file_the_reason_is_said(weights: Path, tmp_path: Path) -> None:
    assert load_lpips(None) == "evaluate.lpips_weights names no file of weights"
    assert load_lpips("missing.pth") == "missing.pth was not found"
    damaged = tmp_path / "alexnet-owt-00000000.pth"
    damaged.write_bytes(weights.read_bytes())
    assert "damaged: its sha256 does not start with 00000000" in str(load_lpips(str(damaged)))
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(3)}, other)
    assert "holds no weights of torchvision's AlexNet" in str(load_lpips(str(other)))
    other.write_bytes(b"nonsense")
    assert "holds no weights of torchvision's AlexNet" in str(load_lpips(str(other)))


class Harmful:
    """A pickle of it would run a command when read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": Harmful()}, "harmful.pth")
    assert "holds no weights" in str(load_lpips("harmful.pth"))
    assert not Path("harmed").exists()


def test_the_column_is_filled_where_it_can_be(
    weights: Path, tmp_path: Path, pack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def noise(seed: int, side: int) -> Any:
        return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)

    path = pack(
        tmp_path / "test.h5",
        {"id": "large", "degraded": noise(0, 64), "clean": noise(1, 64)},
        {"id": "small", "degraded": noise(2, 32), "clean": noise(3, 32)},
        {"id": "unpaired", "degraded": noise(4, 64)},
    )
    run = Run("denoise", DEGRADED)
    settings = Evaluate("fp32", 1, 2, 0, str(weights), 512, 64, 0)
    evaluate(lambda batch: batch, path, path, "sidd", settings, run, {})
    large, small, unpaired = read_table(run.evaluation / TABLE_FILE)
    assert large.lpips is not None and large.lpips > 0
    assert (small.lpips, unpaired.lpips) == (None, None) and small.psnr is not None
    assert '"lpips": "measured"' in (run.evaluation / FACTS_FILE).read_text()


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert not isinstance(load_lpips(str(weights)), str)


def test_its_import_is_light() -> None:
    code = (
        "import sys, pipeline.evaluation.lpips; print({'torch', 'torchmetrics'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
