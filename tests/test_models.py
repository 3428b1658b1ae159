"""Networks against the authors' released U-Net and against known sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.learning import Denoiser as DenoiserSettings
from pipeline.config.learning import UNet as UNetSettings
from pipeline.errors import UserError
from pipeline.models.build import build_restorer, parameter_count
from pipeline.models.denoiser import Denoiser
from pipeline.models.unet import UNet
from pipeline.models.weights import load_strictly, load_tensors, save_tensors

GOLDEN = Path(__file__).parent / "golden" / "restorer_unet.npz"
RELEASED_PREFIX = "state/RestorationNet."


def test_unet_equals_the_released_one() -> None:
    with np.load(GOLDEN) as file:
        weights = {
            name.removeprefix(RELEASED_PREFIX): torch.from_numpy(file[name])
            for name in file.files
            if name.startswith("state/")
        }
        degraded, expected = torch.from_numpy(file["input"]), torch.from_numpy(file["restored"])
    network = UNet(levels=4, channels=8)
    network.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(network(degraded), expected, rtol=0, atol=1e-5)


def test_paper_restorer_has_the_published_size() -> None:
    restorer = build_restorer(UNetSettings(name="unet", levels=4, channels=64))
    assert parameter_count(restorer) == 8_559_171


def test_paper_restorer_has_the_published_cost() -> None:
    macs = 0

    def count(layer: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        kernel = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        macs += output.numel() * kernel

    restorer = build_restorer(UNetSettings(name="unet", levels=4, channels=64))
    for layer in restorer.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        restorer(torch.zeros(1, 3, 128, 128))
    assert macs / 1e9 == pytest.approx(12.44, abs=0.005)


@pytest.mark.parametrize("pixel_unshuffle", [1, 2])
@pytest.mark.parametrize("conditions", [1, 2])
def test_denoiser_predicts_an_image_and_uses_all_it_is_given(
    pixel_unshuffle: int, conditions: int
) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(DenoiserSettings((8, 16), 1, pixel_unshuffle, 8, 4, 0.0), conditions)
    noisy, given = torch.rand(2, 3, 16, 24), torch.rand(2, 3 * conditions, 16, 24)
    level = torch.tensor([0.1, 0.9])
    with torch.no_grad():
        base = denoiser(noisy, given, level)
        assert base.shape == noisy.shape
        assert not torch.allclose(base, denoiser(noisy + 0.1, given, level))
        assert not torch.allclose(base, denoiser(noisy, given + 0.1, level))
        assert not torch.allclose(base, denoiser(noisy, given, level + 0.05))
        # an image's prediction depends on that image alone: both conditions fit in one pass
        alone = denoiser(noisy[:1], given[:1], level[:1])
        torch.testing.assert_close(base[:1], alone, rtol=1e-4, atol=1e-5)


def test_weights_round_trip_and_have_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3)}
    facts = {"seed": 1, "settings": {"x": [1, 2.5, None]}, "name": "ü"}
    for name in ("one", "two"):
        save_tensors(tmp_path / name, tensors, facts)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found, found_facts = load_tensors(tmp_path / "one")
    assert found_facts == facts
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_damaged_missing_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match="not found"):
        load_tensors(path)
    save_tensors(path, {"a": torch.zeros(100)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(UserError, match="damaged"):
        load_tensors(path)
    path.write_bytes(b"PK\x03\x04 pickled")
    with pytest.raises(UserError, match="damaged"):
        load_tensors(path)
    with pytest.raises(UserError, match="another network"):
        load_strictly(UNet(2, 2), {"a": torch.zeros(1)}, path)


def test_a_full_disk_keeps_the_old_weights_and_says_what_to_do(small_disk: Path) -> None:
    path = small_disk / "model.safetensors"
    save_tensors(path, {"a": torch.zeros(10)}, {})
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"cannot be written .*free some disk space"):
        save_tensors(path, {"a": torch.zeros(10**6)}, {})
    assert [file.name for file in small_disk.iterdir()] == [path.name]
    assert path.read_bytes() == before
