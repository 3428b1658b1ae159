"""Whole photographs: padding, tiles, seams, and the model file."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.restorers import UNetSettings
from pipeline.config.running import Evaluate
from pipeline.device import describe_device
from pipeline.images.pixels import Image
from pipeline.images.tiles import aligned_tiles, starts
from pipeline.inference.model import InRange, Model, load_model
from pipeline.inference.tiled import restore
from pipeline.models.build import build_restorer, giga_macs
from pipeline.models.restorers.unet import UNet
from pipeline.models.weights import save_tensors
from pipeline.runtime.errors import UserError

SETTINGS = Evaluate("fp32", 1, 2, 0, None, tile=64, tile_overlap=16, kept_images=0)


class Blur(nn.Module):
    """A 5x5 mean: what it gives depends on two pixels around only."""

    reach = 2

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.layer = nn.Conv2d(3, 3, 5, padding=2, groups=3, bias=False)
        nn.init.constant_(self.layer.weight, 1 / 25)

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[-1] % self.factor == 0 and image.shape[-2] % self.factor == 0
        result: Tensor = self.layer(image)
        return result


def image(height: int, width: int) -> Image:
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (8, 8), (33, 50), (64, 64)])
def test_any_size_is_padded_and_cut_back(size: tuple[int, int]) -> None:
    given = image(*size)
    found = restore(Blur(factor=8), given, 64, 16, "fp32")
    assert found.shape == given.shape and found.dtype == np.float32
    # away from the border the padding cannot be seen
    inside = (slice(2, -2), slice(2, -2))
    plain = restore(Blur(factor=1), given, 64, 16, "fp32")
    np.testing.assert_allclose(found[inside], plain[inside], rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (5, 14), (30, 9)])
def test_sides_are_filled_up_by_repeating_the_last_pixels(size: tuple[int, int]) -> None:
    """As the release does, where numpy calls it ``edge``."""
    given: list[Tensor] = []

    class Watched(Blur):
        def forward(self, image: Tensor) -> Tensor:
            given.append(image)
            return super().forward(image)

    degraded = image(*size)
    restore(Watched(factor=8), degraded, 64, 16, "fp32")
    fill = [(0, -side % 8) for side in size]
    expected = np.pad(degraded, [*fill, (0, 0)], mode="edge")
    np.testing.assert_array_equal(given[0][0].permute(1, 2, 0), expected)


@pytest.mark.parametrize("size", [(65, 40), (150, 97), (64, 200)])
@pytest.mark.parametrize("overlap", [16, 30])
def test_tiles_leave_no_seam(size: tuple[int, int], overlap: int) -> None:
    given = image(*size)
    whole = restore(Blur(factor=1), given, 1000, overlap, "fp32")
    tiled = restore(Blur(factor=1), given, 64, overlap, "fp32")
    # a tile is wrong near its own borders only, where its weight is lowest
    np.testing.assert_allclose(tiled, whole, atol=Blur.reach / (overlap + 1))
    wrong = np.abs(tiled - whole).max(axis=2) > 1e-5
    tiles = math.prod(len(starts(side, 64, 64 - overlap)) for side in size)
    assert wrong.sum() <= tiles * 2 * Blur.reach * sum(size)


@pytest.mark.parametrize("factor", [1, 4, 8, 64])
@pytest.mark.parametrize(("size", "overlap"), [(64, 16), (100, 20), (33, 16), (512, 64), (32, 0)])
def test_tiles_are_aligned_and_overlap_as_wanted(size: int, overlap: int, factor: int) -> None:
    for length in (1, 31, 33, 64, 65, 127, 203, 520, 1001):
        tiles = aligned_tiles(length, size, overlap, factor)
        assert (tiles[0].start, tiles[-1].stop) == (0, length)
        assert len(tiles) == 1 or length > size
        for before, after in itertools.pairwise(tiles):
            assert after.start % factor == before.stop % factor == 0
            assert before.start < after.start and before.stop - after.start >= overlap
            assert before.stop < after.stop
            assert before.stop - before.start <= max(size, overlap + 2 * factor)


@pytest.mark.parametrize("size", [(203, 291), (291, 203)])
def test_the_papers_restorer_in_tiles(size: tuple[int, int]) -> None:
    """The bound of docs/restoring.md, of weights by chance that change an image by 0.5 on average.

    Its interpolation with aligned corners depends on the tile's size, so that the middle of a tile
    differs too. Neither side is a multiple of the factor, 8: unaligned tiles would be padded
    otherwise than the whole at the lower and the right edge, and differ there by 0.4.
    """
    torch.manual_seed(1)
    network = build_restorer(UNetSettings("unet", levels=4, channels=4)).eval()
    for parameter in network.parameters():
        parameter.data *= 2.0
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = 0.5 + 0.2 * np.sin(rows / 9) * np.cos(columns / 13)
    given = (waves[..., None] + 0.1 * (image(*size) - 0.5)).astype(np.float32)
    whole = restore(network, given, 512, 0, "fp32")
    assert 0.3 < np.abs(whole - given).mean() < 1
    off = np.abs(restore(network, given, 96, 32, "fp32") - whole)
    assert off.max() < 0.03 and off.mean() < 0.002
    alone = []  # where a single tile decides
    for side in size:
        covered = np.zeros(side, int)
        for tile in aligned_tiles(side, 96, 32, 8):
            covered[tile] += 1
        alone.append(covered == 1)
    inside = off[np.ix_(*alone)]
    assert 1e-5 < inside.max() < 0.003


def test_a_constant_stays_constant_through_tiles() -> None:
    """The weights of overlapping tiles add up to one."""

    class Nothing(nn.Module):
        factor = 1

        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, image: Tensor) -> Tensor:
            return image

    given = np.full((131, 77, 3), 0.3, np.float32)
    np.testing.assert_allclose(restore(Nothing(), given, 32, 15, "fp32"), given, rtol=1e-6)


def test_a_trained_model_is_rebuilt_from_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UNet(levels=2, channels=4)
    path = tmp_path / "model.safetensors"
    facts = {"restorer": {"kind": "unet", "levels": 2, "channels": 4}, "image_range": [0.0, 1.0]}
    save_tensors(path, network.state_dict(), facts)
    given = image(32, 48)
    found = load_model(path, SETTINGS)(given)
    with torch.no_grad():
        expected = network(torch.from_numpy(given.transpose(2, 0, 1)[None]))[0]
    np.testing.assert_allclose(found, expected.numpy().transpose(1, 2, 0), atol=1e-5)


def test_a_model_whose_weights_and_settings_disagree_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    facts = {"restorer": {"kind": "unet", "levels": 3, "channels": 4}, "image_range": [0.0, 1.0]}
    save_tensors(path, UNet(levels=2, channels=4).state_dict(), facts)
    with pytest.raises(UserError, match="weights of another network"):
        load_model(path, SETTINGS)


def test_a_network_of_another_range_restores_images_all_the_same(
    tmp_path: Path,
) -> None:
    """Every weight 0: the residual is the last bias, half a unit of a range of two units."""
    network = UNet(levels=2, channels=4)
    for weight in network.parameters():
        torch.nn.init.zeros_(weight)
    network.last.bias.data.fill_(0.5)
    facts = {
        "restorer": {"kind": "unet", "levels": 2, "channels": 4},
        "image_range": [-1.0, 1.0],
    }
    save_tensors(tmp_path / "model", network.state_dict(), facts)
    image = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    restored = load_model(tmp_path / "model", SETTINGS)(image)
    np.testing.assert_allclose(restored, image + 0.25, atol=1e-6)


@pytest.mark.parametrize("side", [48, 100])
def test_several_images_are_restored_as_one_by_one(tmp_path: Path, side: int) -> None:
    """Also those larger than a tile."""
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    facts = {"restorer": {"kind": "unet", "levels": 2, "channels": 4}, "image_range": [0.0, 1.0]}
    save_tensors(path, UNet(levels=2, channels=4).state_dict(), facts)
    model = load_model(path, SETTINGS)
    given = [image(side, side + 3) * share for share in (0.2, 0.6, 1.0)]
    together = model.restore_equal([one.astype(np.float32) for one in given])
    for one, found in zip(given, together, strict=True):
        np.testing.assert_allclose(found, model(one.astype(np.float32)), atol=1e-6)


def test_multiplications_of_the_papers_restorer() -> None:
    """The authors' own count is 12.44 for 128x128 pixels."""
    network = build_restorer(UNetSettings("unet", levels=4, channels=64))
    assert giga_macs(network) == pytest.approx(12.44, abs=0.005)


@pytest.mark.parametrize(
    ("wanted", "hardware", "used"),
    [("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"),
     ("bf16", False, "bf16")],
)  # fmt: skip
def test_the_facts_name_the_precision_in_use_and_the_device(
    wanted: Any, hardware: bool, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.device.has_bfloat16", lambda: hardware)
    settings = dataclasses.replace(SETTINGS, precision=wanted)
    network = InRange(build_restorer(UNetSettings("unet", levels=2, channels=4)), (0.0, 1.0))
    model = Model(network, settings)
    facts = model.facts()
    assert (facts["precision"], model.precision) == (used, used)
    assert facts["device"] == describe_device(torch.device("cpu"))
    assert facts == Model(network, settings).facts(), "runs on one machine agree"
