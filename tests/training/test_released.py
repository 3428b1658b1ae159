"""The authors' weight files: names as in that file, nothing unpickled but tensors."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.methods import ReleasedWeights
from pipeline.config.restorers import UNetSettings
from pipeline.config.running import Evaluate
from pipeline.inference.model import load_model
from pipeline.models.weights import load_tensors
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import sha256_of
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, Run
from pipeline.training.released import read_released, take_over

GOLDEN = Path(__file__).parents[1] / "golden" / "restorer_unet.npz"
SMALL = UNetSettings(kind="unet", levels=4, channels=8)
"""The network of the golden file; the paper's has 64 channels."""
RUN = Run("denoise", "released", 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file as the authors' code saves it: a state dict, restorer and denoiser together."""
    with np.load(GOLDEN) as golden:
        state = {
            name.removeprefix("state/"): torch.from_numpy(golden[name])
            for name in golden.files
            if name.startswith("state/")
        }
    state["denoise_fn.input_blocks.0.0.weight"] = torch.zeros(3)
    path = tmp_path / "denoise.pth"
    torch.save(state, path)
    return path


def weights(path: Path) -> ReleasedWeights:
    return ReleasedWeights(str(path), sha256_of(path), image_range=(0.0, 1.0))


def test_it_restores_as_the_authors_code_does(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    take_over(weights(file), RUN, SMALL)
    settings = Evaluate("fp32", 1, 1, 0, None, tile=512, tile_overlap=64, kept_images=0)
    restore = load_model(RUN.training / MODEL_FILE, settings)
    with np.load(GOLDEN) as golden:
        for given, expected in zip(golden["input"], golden["restored"], strict=True):
            restored = restore(given.transpose(1, 2, 0))
            np.testing.assert_allclose(restored.transpose(2, 0, 1), expected, atol=1e-5)
    _, facts = load_tensors(RUN.training / MODEL_FILE)
    assert facts["method"] == "released" and "steps" not in facts
    assert facts["giga_macs_128"] > 0
    assert (RUN.training / LOG_FILE).read_text() == "step\n"


def test_it_is_given_images_in_its_own_range(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release's deraining and deblurring were trained on [-1, 1], whatever the task has."""
    monkeypatch.chdir(tmp_path)
    settings = Evaluate("fp32", 1, 1, 0, None, tile=512, tile_overlap=64, kept_images=0)
    take_over(replace(weights(file), image_range=(-1.0, 1.0)), RUN, SMALL)
    restore = load_model(RUN.training / MODEL_FILE, settings)
    with np.load(GOLDEN) as golden:
        given, expected = golden["input"][0], golden["restored"][0]
    restored = 2 * restore((given.transpose(1, 2, 0) + 1) / 2) - 1
    np.testing.assert_allclose(restored.transpose(2, 0, 1), expected, atol=1e-5)


def test_names_of_a_network_saved_in_parallel_are_known(file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True)
    parallel = tmp_path / "parallel.pth"
    torch.save({f"module.{name}": value for name, value in state.items()}, parallel)
    assert read_released(weights(parallel)).keys() == read_released(weights(file)).keys()


class Harmful:
    """A pickle of it would run a command when read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


def test_a_file_with_code_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "harmful.pth"
    torch.save({"RestorationNet.last.weight": Harmful()}, path)
    with pytest.raises(UserError, match=r"harmful.pth: not a file of weights alone"):
        read_released(weights(path))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"<html>Sign in</html>", b"PK\x03\x04 cut"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"page.pth: not a file of weights alone"):
        read_released(weights(path))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found; download the authors' weights"):
        read_released(ReleasedWeights(str(tmp_path / "none.pth"), "0", (0.0, 1.0)))


def test_a_changed_file_is_told_with_both_hashes(file: Path) -> None:
    with pytest.raises(UserError, match=f"its sha256 is {sha256_of(file)}, expected 123;"):
        read_released(ReleasedWeights(str(file), "123", (0.0, 1.0)))


def test_weights_of_another_network_are_told(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="weights of another network"):
        take_over(weights(file), RUN, UNetSettings(kind="unet", levels=3, channels=8))
    foreign = tmp_path / "foreign.pth"
    torch.save({"conv.weight": torch.zeros(1)}, foreign)
    with pytest.raises(UserError, match=r"no weight is named RestorationNet\.\*, found conv"):
        read_released(weights(foreign))
    torch.save([torch.zeros(1)], foreign)
    with pytest.raises(UserError, match="found list, expected names and tensors"):
        read_released(weights(foreign))
