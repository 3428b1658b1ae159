"""Joint batches: which image, which crop, which symmetry, which noise; and where draws come from.

The images say where each pixel lies: red is its row, green its column, blue the image's number.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.config.degradations import GaussianNoise
from pipeline.config.read import check
from pipeline.config.running import Train
from pipeline.config.tasks import SyntheticDomain
from pipeline.datasets.batches import SYMMETRIES, Batch, JointCrops, Share, batches, transform
from pipeline.images.pixels import from_range
from pipeline.images.store import ImageStore
from pipeline.randomness import numpy_generator, seeded_torch, stable_seed, torch_generator
from pipeline.runtime.errors import UserError

Pixels = NDArray[np.uint8]

PATCH = 8
SIZES = [(8, 8), (8, 12), (30, 9), (16, 16), (11, 13)]
TURN = Image.Transpose
BY_HAND: list[list[Image.Transpose]] = [
    *([], [TURN.ROTATE_90], [TURN.ROTATE_180], [TURN.ROTATE_270]),
    *([TURN.FLIP_LEFT_RIGHT], [TURN.FLIP_TOP_BOTTOM], [TURN.TRANSPOSE], [TURN.TRANSVERSE]),
]


def symmetries(image: Pixels) -> list[Pixels]:
    """Return the eight rotations and reflections, made by Pillow."""
    made = []
    for steps in BY_HAND:
        picture = Image.fromarray(np.ascontiguousarray(image))
        for step in steps:
            picture = picture.transpose(step)
        made.append(np.asarray(picture))
    return made


def mapped(number: int, height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows, columns, np.full_like(rows, number)]).astype(np.uint8)


def to_pixels(crop: Tensor) -> Pixels:
    """Return a crop (3, patch, patch) as stored values, which it must hold exactly."""
    assert crop.dtype == torch.float32
    scaled = crop.numpy().transpose(1, 2, 0) * 255
    assert np.abs(scaled - np.rint(scaled)).max() < 1e-4
    return np.rint(scaled).astype(np.uint8)


def number_of(crop: Tensor) -> int:
    (number,) = set(to_pixels(crop)[..., 2].ravel().tolist())
    return int(number)


def noise(*sigma_255: float) -> SyntheticDomain:
    return SyntheticDomain(GaussianNoise("gaussian_noise", sigma_255), "anew", 1)


@pytest.fixture
def stores(tmp_path: Path, pack: Callable[..., Path]) -> tuple[ImageStore, ImageStore]:
    """Five clean images of several sizes, and three real ones."""
    images = [mapped(number, *size) for number, size in enumerate(SIZES)]
    clean = [{"id": f"clean{n}", "clean": image} for n, image in enumerate(images)]
    real = [{"id": f"real{n}", "degraded": mapped(n + 100, 20, 20)} for n in range(3)]
    return (
        ImageStore(pack(tmp_path / "synthetic.h5", *clean)),
        ImageStore(pack(tmp_path / "real.h5", *real)),
    )


@pytest.fixture
def crops(stores: tuple[ImageStore, ImageStore]) -> JointCrops:
    return JointCrops(*stores, noise(0, 0), PATCH, seed=0)


@pytest.fixture
def train(values: dict[str, Any]) -> Train:
    return replace(check(values).train, batch=4, patch=PATCH, workers=0)


# Crops


def test_a_crop_is_a_symmetry_of_a_window(crops: JointCrops) -> None:
    """All eight occur about equally often; windows reach every corner."""
    seen: Counter[int] = Counter()
    corners = set()
    for sample in range(400):
        synthetic, clean, real = crops[sample]
        assert synthetic.shape == clean.shape == real.shape == (3, PATCH, PATCH)
        for crop in (clean, real):
            found = to_pixels(crop)
            top, left, number = found.reshape(-1, 3).min(axis=0).tolist()
            height, width = (20, 20) if number >= 100 else SIZES[number]
            window = mapped(number, height, width)[top : top + PATCH, left : left + PATCH]
            assert window.shape == found.shape
            (symmetry,) = (
                kind for kind, other in enumerate(symmetries(window)) if (other == found).all()
            )
            seen[symmetry] += 1
            if number == 4:
                corners |= {(top, left)} & {(0, 0), (0, 5), (3, 0), (3, 5)}
    assert set(seen) == set(range(8))
    assert max(seen.values()) < 150 and min(seen.values()) > 60  # 100 each, deviation 9
    assert len(corners) == 4


def test_transform_makes_all_eight_symmetries() -> None:
    image = mapped(0, 4, 6)
    made = {transform(image, symmetry).tobytes() for symmetry in range(SYMMETRIES)}
    assert SYMMETRIES == 8
    assert made == {other.tobytes() for other in symmetries(image)}
    assert_array_equal(transform(image, 0), image)


def test_without_noise_both_crops_are_the_same(crops: JointCrops) -> None:
    for sample in range(50):
        synthetic, clean, _ = crops[sample]
        assert torch.equal(synthetic, clean)


def test_a_stored_pair_is_cut_and_turned_alike(
    stores: tuple[ImageStore, ImageStore], tmp_path: Path, pack: Callable[..., Path]
) -> None:
    images = [mapped(number, *size) for number, size in enumerate(SIZES)]
    pairs = [
        {"id": str(number), "clean": image, "degraded": 255 - image}
        for number, image in enumerate(images)
    ]
    stored = ImageStore(pack(tmp_path / "pairs.h5", *pairs))
    # the noise is not drawn: these pairs are already degraded
    both = JointCrops(stored, stores[1], noise(50, 50), PATCH, seed=0)
    anew = JointCrops(*stores, noise(0, 0), PATCH, seed=0)
    for sample in range(50):
        degraded, clean, _ = both[sample]
        assert_array_equal(to_pixels(degraded), 255 - to_pixels(clean))
        assert torch.equal(clean, anew[sample][1])


def test_noise_is_drawn_for_every_sample_and_not_clipped(
    stores: tuple[ImageStore, ImageStore], tmp_path: Path, pack: Callable[..., Path]
) -> None:
    black = {"id": "black", "clean": np.zeros((64, 64, 3), np.uint8)}
    white = {"id": "white", "clean": np.full((64, 64, 3), 255, np.uint8)}
    clean = ImageStore(pack(tmp_path / "clean.h5", black, white))
    real = ImageStore(pack(tmp_path / "large.h5", {"id": "r", "degraded": black["clean"]}))
    noisy = JointCrops(clean, real, noise(51, 51), 64, seed=0)
    fields = []
    for sample in range(6):
        synthetic, truth, _ = noisy[sample]
        field = (synthetic - truth).numpy()
        # sigma 51 is 0.2; 12,288 values give its estimate a deviation of 0.0013
        assert abs(field.std() - 0.2) < 0.008 and abs(field.mean()) < 0.01
        assert synthetic.min() < -0.4 or synthetic.max() > 1.4
        fields.append(field.ravel())
    assert np.abs(np.corrcoef(fields) - np.eye(6)).max() < 0.05


def test_an_image_smaller_than_the_patch_is_named(
    stores: tuple[ImageStore, ImageStore], tmp_path: Path, pack: Callable[..., Path]
) -> None:
    synthetic, real = stores
    with pytest.raises(UserError, match=r"synthetic.h5: image 'clean0' is 8x8, .* patch of 9"):
        JointCrops(synthetic, real, noise(0, 0), 9, seed=0)
    small = ImageStore(pack(tmp_path / "small.h5", {"id": "tiny", "degraded": mapped(0, 7, 99)}))
    with pytest.raises(UserError, match=r"small.h5: image 'tiny' is 99x7, .* patch of 8"):
        JointCrops(synthetic, small, noise(0, 0), 8, seed=0)


# Order


def test_every_epoch_visits_every_image_once_in_a_new_order(crops: JointCrops) -> None:
    samples = [crops[sample] for sample in range(60)]
    for place, images, first in ((1, 5, 0), (2, 3, 100)):
        numbers = [number_of(sample[place]) for sample in samples]
        epochs = [numbers[start : start + images] for start in range(0, 60, images)]
        assert all(sorted(epoch) == list(range(first, first + images)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 3


def test_both_domains_are_drawn_apart(
    stores: tuple[ImageStore, ImageStore], tmp_path: Path, pack: Callable[..., Path]
) -> None:
    """Of the same images, the clean and the real crop of a sample are chosen independently."""
    images = [mapped(number, 20, 20) for number in range(4)]
    clean = [{"id": str(number), "clean": image} for number, image in enumerate(images)]
    real = [{"id": str(number), "degraded": image} for number, image in enumerate(images)]
    stored = [
        ImageStore(pack(tmp_path / "a.h5", *clean)),
        ImageStore(pack(tmp_path / "b.h5", *real)),
    ]
    crops = JointCrops(*stored, noise(0, 0), PATCH, seed=0)
    samples = [crops[sample] for sample in range(200)]
    same_image = sum(number_of(clean) == number_of(real) for _, clean, real in samples)
    assert 25 < same_image < 80  # 50 expected
    assert sum(torch.equal(clean, real) for _, clean, real in samples) < 3


def test_a_sample_depends_on_nothing_that_ran_before(
    stores: tuple[ImageStore, ImageStore], crops: JointCrops
) -> None:
    forward = [crops[sample] for sample in range(20)]
    np.random.default_rng(5).random()
    torch.manual_seed(5)
    fresh = JointCrops(*stores, noise(0, 0), PATCH, seed=0)
    for sample in reversed(range(20)):
        for one, other in zip(forward[sample], fresh[sample], strict=True):
            assert torch.equal(one, other)


def test_another_seed_draws_everything_anew(stores: tuple[ImageStore, ImageStore]) -> None:
    domain = noise(25, 25)
    one, other = (JointCrops(*stores, domain, PATCH, seed=seed) for seed in (0, 1))
    for place in range(3):
        same = sum(torch.equal(one[n][place], other[n][place]) for n in range(40))
        assert same < 4
    orders = [[number_of(crops[n][1]) for n in range(20)] for crops in (one, other)]
    assert orders[0] != orders[1]


# Batches


def listed(found: Any) -> list[tuple[Tensor, ...]]:
    return [(batch.synthetic, batch.clean, batch.real) for batch in found]


def assert_same(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_batch_holds_the_samples_of_its_step(
    stores: tuple[ImageStore, ImageStore], train: Train
) -> None:
    crops = JointCrops(*stores, noise(0, 75), PATCH, seed=3)
    found = listed(batches(crops, Share(train), 2, 5))  # steps 3, 4, 5
    expected = [
        tuple(torch.stack(part) for part in zip(*(crops[n] for n in samples), strict=True))
        for samples in (range(8, 12), range(12, 16), range(16, 20))
    ]
    assert_same(found, expected)
    assert found[0][0].shape == (4, 3, PATCH, PATCH)


def test_workers_and_the_first_step_change_nothing(
    stores: tuple[ImageStore, ImageStore], train: Train
) -> None:
    crops = JointCrops(*stores, noise(0, 75), PATCH, seed=3)
    unbroken = listed(batches(crops, Share(train), 0, 6))
    assert_same(listed(batches(crops, Share(replace(train, workers=2)), 0, 6)), unbroken)
    assert_same(listed(batches(crops, Share(replace(train, workers=1)), 4, 6)), unbroken[4:])
    assert_same(listed(batches(crops, Share(train), 5, 6)), unbroken[5:])
    assert listed(batches(crops, Share(train), 6, 6)) == []
    assert all(not torch.equal(a[0], b[0]) for a, b in pairwise(unbroken))


def test_a_moved_batch_has_the_same_values(train: Train, crops: JointCrops) -> None:
    (batch,) = batches(crops, Share(train), 0, 1)
    moved = batch.to(torch.device("cpu"), (0, 1))
    assert isinstance(moved, Batch)
    for name in ("synthetic", "clean", "real"):
        value, there = getattr(batch, name), getattr(moved, name)
        assert torch.equal(there, value)
        assert there.is_contiguous(memory_format=torch.channels_last)


def test_a_moved_batch_lies_in_the_range_asked_for(train: Train, crops: JointCrops) -> None:
    (batch,) = batches(crops, Share(train), 0, 1)
    moved = batch.to(torch.device("cpu"), (-1, 1))
    assert moved.span == 2
    torch.testing.assert_close(moved.clean, batch.clean * 2 - 1)
    torch.testing.assert_close(from_range(moved.clean, (-1, 1)), batch.clean)


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 4), (2, 1), (2, 2), (4, 1)])
def test_processes_and_shares_divide_the_same_batches(
    stores: tuple[ImageStore, ImageStore], train: Train, devices: int, accumulate: int
) -> None:
    crops = JointCrops(*stores, noise(0, 75), PATCH, seed=3)
    whole = listed(batches(crops, Share(train), 1, 3))
    divided = replace(train, devices=devices, accumulate=accumulate)
    parts = [listed(batches(crops, Share(divided, rank), 1, 3)) for rank in range(devices)]
    for step, expected in enumerate(whole):
        shares = [
            part[step * accumulate + number] for part in parts for number in range(accumulate)
        ]
        assert_same([tuple(torch.cat(role) for role in zip(*shares, strict=True))], [expected])
        for first, second in combinations(shares, 2):
            assert not torch.equal(first[2], second[2]), "different real images"


def test_unpaired_crops_are_clean_ones_of_other_samples(
    stores: tuple[ImageStore, ImageStore], train: Train
) -> None:
    crops = JointCrops(*stores, noise(0, 0), PATCH, seed=3, unpaired=stores[0])
    synthetic, clean, real, unpaired = crops[5]
    again = JointCrops(*stores, noise(0, 0), PATCH, seed=3)[5]
    assert_same([(synthetic, clean, real)], [again])  # the others do not change with it
    assert not torch.equal(unpaired, clean)
    (batch,) = batches(crops, Share(train), 0, 1)
    assert batch.unpaired is not None and batch.unpaired.shape == batch.clean.shape


# Randomness


def test_a_seed_is_the_hash_of_its_parts() -> None:
    """``printf "(0, 'x', 1)" | b2sum -l 64`` gives 2874dd41139f2e4c; a seed has 63 bits."""
    assert stable_seed(0, "x", 1) == 0x2874DD41139F2E4C >> 1


def test_a_seed_is_the_same_in_another_process() -> None:
    """Unlike Python's own hash."""
    code = "from pipeline.randomness import stable_seed; print(stable_seed('name', 7))"
    root = Path(__file__).parents[2]
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True)
    assert int(printed.stdout) == stable_seed("name", 7)


def test_other_parts_give_other_seeds() -> None:
    parts = [(), (0,), ("0",), (0, 1), (1, 0), (10,), ("a", "b"), ("ab",), ("a", "b", 0), ("a,b",)]
    assert len({stable_seed(*some) for some in parts}) == len(parts)
    assert len({stable_seed("n", number) for number in range(1000)}) == 1000


def test_generators_repeat_themselves() -> None:
    assert_array_equal(numpy_generator(1, "a").random(9), numpy_generator(1, "a").random(9))
    assert (numpy_generator(1, "a").random(9) != numpy_generator(2, "a").random(9)).all()
    one, other = (torch.rand(9, generator=torch_generator(1, "a")) for _ in range(2))
    assert torch.equal(one, other)
    assert torch_generator(1).device.type == "cpu"


def test_seeding_torch_leaves_its_state_behind() -> None:
    torch.manual_seed(11)
    expected = torch.rand(5)
    torch.manual_seed(11)
    with seeded_torch("weights", 0):
        inside = torch.rand(5)
    assert torch.equal(torch.rand(5), expected)
    with pytest.raises(ZeroDivisionError), seeded_torch("weights", 0):
        assert torch.equal(torch.rand(5), inside)
        1 / 0  # noqa: B018
    with seeded_torch("weights", 1):
        assert not torch.equal(torch.rand(5), inside)
