"""The package as pip installs it, far from the checkout: the command ``noise-space``."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.models.restorers.unet import UNet
from pipeline.models.weights import save_tensors
from tests.helpers.workspace import ROOT, copy_tree

FACTS = {"restorer": {"kind": "unet", "levels": 2, "channels": 4}, "image_range": [0.0, 1.0]}
CALL = "import sys; sys.argv[0] = 'noise-space'; from {} import {} as main; sys.exit(main())"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel holds, as it lies in site-packages."""
    folder = tmp_path_factory.mktemp("installed")
    copy_tree(folder / "checkout")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=folder / "checkout",
                   capture_output=True, check=True)  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def noise_space(installed: Path, here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command as the script does that pip makes of the entry point."""
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    module, _, function = entry.read_text().partition("noise-space = ")[2].strip().partition(":")
    return subprocess.run(
        [sys.executable, "-P", "-c", CALL.format(module, function), *words],
        cwd=here, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True,
    )  # fmt: skip


def test_it_restores_a_photograph(installed: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_tensors(tmp_path / "model.safetensors", UNet(levels=2, channels=4).state_dict(), FACTS)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    done = noise_space(installed, tmp_path, "restore", "photo.png",
                       "--model", "model.safetensors", "--out", "x")  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "x" / "photo.png") as restored:
        assert restored.size == (48, 40)
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "model.safetensors", "x"}


def test_nothing_that_the_package_reads_is_left_behind(installed: Path, tmp_path: Path) -> None:
    done = noise_space(installed, tmp_path, "compose", "preset=tiny", "restorer=nafnet")
    assert done.returncode == 0, done.stderr
    assert "nafnet" in (tmp_path / "params.yaml").read_text()
    files = {path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    assert {path for path in files if not (installed / path).is_file()} == set()
    assert noise_space(installed, tmp_path).stdout.startswith("Usage: noise-space COMMAND")
