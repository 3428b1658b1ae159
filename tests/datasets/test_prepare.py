"""Preparing: where crops lie, what they are called, and which pixels they hold."""

import importlib.resources
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.read import check
from pipeline.config.sources import SPLITS, Crop, Crops, FolderSource, PairFolders, Source
from pipeline.datasets.prepare import prepare
from pipeline.images.store import ImageStore
from pipeline.images.tiles import starts
from pipeline.runtime.errors import UserError
from pipeline.sources import bundled, folder
from pipeline.sources.archives.reading import write_archive
from pipeline.sources.photographs import ARCHIVE

Pixels = NDArray[np.uint8]


@pytest.mark.parametrize(
    ("length", "size", "step", "expected"),
    [
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),
        (10, 4, 10, [0, 6]),
        (8, 4, 4, [0, 4]),
        (9, 4, 4, [0, 4, 5]),
        (5, 4, 4, [0, 1]),
        (4, 4, 1, [0]),
        (3, 4, 1, [0]),
        (1, 8, 8, [0]),
        (600, 256, 256, [0, 256, 344]),
    ],
)
def test_starts(length: int, size: int, step: int, expected: list[int]) -> None:
    assert starts(length, size, step) == expected


def test_crops_cover_every_pixel_and_stay_inside() -> None:
    for length in range(1, 30):
        for size in range(1, 12):
            for step in range(1, size + 1):
                covered = np.zeros(length, int)
                for start in starts(length, size, step):
                    covered[start : start + size] += 1
                    assert start == 0 or start + size <= length
                assert covered.all()


class Own:
    """A user's folder of one clean and one real photograph, and what prepare makes of it."""

    def __init__(self, root: Path, pixels: Callable[..., Pixels]) -> None:
        self.root, self.clean, self.real = root, pixels(1, 20, 13), pixels(2, 9, 30)
        self.add("clean/c.png", self.clean)
        self.add("real/r.png", self.real)

    def add(self, name: str, image: Pixels, **options: Any) -> None:
        path = self.root / "photographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **options)

    def settings(
        self, pairs: bool = False, min_side: int | None = None, **crops: Crop
    ) -> FolderSource:
        test = {"evening": PairFolders("noisy", "truth")} if pairs else {}
        cuts = Crops(**(dict.fromkeys(SPLITS) | crops))
        location = str(self.root / "photographs")
        return FolderSource(
            "folder",
            location,
            "own",
            "clean",
            None,
            "real",
            test,
            min_side,
            False,
            "{}",
            "{}",
            cuts,
        )

    def prepare(
        self, pairs: bool = False, min_side: int | None = None, **crops: Crop
    ) -> dict[str, ImageStore]:
        settings = self.settings(pairs, min_side, **crops)
        folder.download(settings, self.root / "raw")
        prepare(settings, self.root / "raw", self.root / "prepared")
        return stores_of(self.root / "prepared")


def stores_of(prepared: Path) -> dict[str, ImageStore]:
    return {split: ImageStore(prepared / f"{split}.h5") for split in SPLITS}


@pytest.fixture
def own(tmp_path: Path, pixels: Callable[..., Pixels]) -> Own:
    return Own(tmp_path, pixels)


def test_images_are_kept_whole_without_crops(own: Own) -> None:
    stores = own.prepare()
    assert stores["synthetic"].ids == ["c"]
    assert_array_equal(stores["synthetic"].image("clean", 0), own.clean)
    assert not stores["synthetic"].has("degraded", 0)
    assert stores["real"].ids == ["r"]
    assert_array_equal(stores["real"].image("degraded", 0), own.real)
    assert not stores["real"].has("clean", 0)
    assert len(ImageStore(own.root / "prepared" / "truth.h5")) == 0
    assert stores["test"].ids == ["unscored/r"]
    assert_array_equal(stores["test"].image("degraded", 0), own.real)


def test_small_training_images_are_left_out_and_counted(
    own: Own, pixels: Callable[..., Pixels], capfd: pytest.CaptureFixture[str]
) -> None:
    """Beside 20 x 13 clean and 9 x 30 real; of a test none is left out."""
    own.add("clean/small.png", pixels(3, 12, 40))
    own.add("real/large.png", pixels(4, 13, 13))
    stores = own.prepare(min_side=13)
    assert stores["synthetic"].ids == ["c"] and stores["real"].ids == ["large"]
    assert stores["test"].ids == ["unscored/large", "unscored/r"]
    told = capfd.readouterr().err
    assert "left out 2 of 6 images with a side below 13 pixels" in told


def test_a_damaged_image_is_told_with_its_archive_and_the_switch(own: Own) -> None:
    settings = own.settings()
    folder.download(settings, own.root / "raw")
    content = (own.root / "photographs" / "clean" / "c.png").read_bytes()
    path = own.root / "raw" / ARCHIVE
    write_archive(path, [("clean/c.png", lambda: content[:100]), ("real/r.png", lambda: content)])
    with pytest.raises(UserError) as caught:
        prepare(settings, own.root / "raw", own.root / "prepared")
    told = str(caught.value)
    assert told.startswith("clean/c.png: damaged image") and f"(in {ARCHIVE})" in told
    assert told.endswith("; sources.prepared.skip_unreadable=true leaves it out of training")
    write_archive(path, [("clean/c.png", lambda: content), ("test/x/clean/t.png", lambda: b""),
                         ("test/x/degraded/t.png", lambda: b"")])  # fmt: skip
    pairs = replace(settings, test={"x": PairFolders("noisy", "truth")})
    with pytest.raises(UserError, match=rf"t\.png: not an image .*\(in {ARCHIVE}\)$"):
        prepare(pairs, own.root / "raw", own.root / "prepared")


def test_crops_lie_flush_with_the_edges(own: Own) -> None:
    """20 high, 13 wide: squares of 8 every 6 begin at 0, 6, 12 and at 0, 5."""
    store = own.prepare(synthetic=Crop(8, 6, 0))["synthetic"]
    places = [(top, left) for top in (0, 6, 12) for left in (0, 5)]
    assert store.ids == [f"c_{top:04d}_{left:04d}" for top, left in places]
    assert store.ids[-1] == "c_0012_0005"
    assert store.scenes == ["c"] * 6
    assert store.heights.tolist() == store.widths.tolist() == [8] * 6
    for index, (top, left) in enumerate(places):
        expected = own.clean[top : top + 8, left : left + 8]
        assert_array_equal(store.image("clean", index), expected, strict=True)


def test_an_image_smaller_than_a_crop_is_kept_whole(own: Own) -> None:
    """20 high, 13 wide against 16; 9 high, 30 wide against 40."""
    stores = own.prepare(synthetic=Crop(16, 16, 0), real=Crop(40, 8, 0))
    assert stores["synthetic"].ids == ["c_0000_0000", "c_0004_0000"]
    assert_array_equal(stores["synthetic"].image("clean", 1), own.clean[4:20])
    assert stores["real"].ids == ["r_0000_0000"]
    assert_array_equal(stores["real"].image("degraded", 0), own.real)


def test_pairs_are_cut_alike(own: Own, pixels: Callable[..., Pixels]) -> None:
    images = {}
    for seed, name in enumerate(["in/y", "x"]):
        for role, place in (("degraded", "noisy"), ("clean", "truth")):
            images[role, name] = pixels(10 * seed + len(role), 8, 12)
            own.add(f"{place}/{name}.png", images[role, name])
    store = own.prepare(pairs=True, test=Crop(8, 3, 0))["test"]
    crops = [(name, left) for name in ("in/y", "x") for left in (0, 3, 4)]
    assert store.ids == [f"evening/{name}_0000_{left:04d}" for name, left in crops]
    assert store.scenes == [f"evening/{name}" for name, _ in crops]
    assert store.data_sets == ["evening"] * 6
    for index, (name, left) in enumerate(crops):
        for role in ("degraded", "clean"):
            expected = images[role, name][:, left : left + 8]
            assert_array_equal(store.image(role, index), expected)


def test_an_image_is_cut_as_it_is_shown(own: Own) -> None:
    """A portrait photograph lies on its side in the file."""
    tags = Image.Exif()
    tags[0x0112] = 6  # EXIF orientation: turn clockwise
    own.add("clean/c.png", own.clean, exif=tags)
    store = own.prepare(synthetic=Crop(13, 13, 0))["synthetic"]
    assert store.ids == ["c_0000_0000", "c_0000_0007"]
    shown = np.rot90(own.clean, -1)
    assert_array_equal(store.image("clean", 1), shown[:, 7:20])


def test_twice_gives_the_same_bytes(own: Own) -> None:
    own.prepare(synthetic=Crop(8, 6, 0))
    first = {path.name: path.read_bytes() for path in (own.root / "prepared").iterdir()}
    own.prepare(synthetic=Crop(8, 6, 0))
    again = {path.name: path.read_bytes() for path in (own.root / "prepared").iterdir()}
    assert again == first
    assert set(first) == {"synthetic.h5", "real.h5", "truth.h5", "test.h5", "pairs.csv"}


def test_a_missing_archive_is_told(own: Own, skimage: Source) -> None:
    for settings in (own.settings(), skimage):
        with pytest.raises(UserError, match=rf"{ARCHIVE}.*dvc repro"):
            prepare(settings, own.root / "raw", own.root / "prepared")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4" + bytes(100)])
def test_a_damaged_archive_is_told(own: Own, skimage: Source, content: bytes) -> None:
    (own.root / "raw").mkdir()
    (own.root / "raw" / ARCHIVE).write_bytes(content)
    for settings in (own.settings(), skimage):
        with pytest.raises(UserError, match=ARCHIVE):
            prepare(settings, own.root / "raw", own.root / "prepared")


# The bundled photographs, all of them


@pytest.fixture
def skimage(values: dict[str, Any]) -> Source:
    return check(values).sources["skimage"]


@pytest.fixture
def bundled_stores(skimage: Source, tmp_path: Path) -> dict[str, ImageStore]:
    bundled.download(skimage, tmp_path / "raw")
    prepare(skimage, tmp_path / "raw", tmp_path / "prepared")
    return stores_of(tmp_path / "prepared")


def test_the_bundled_photographs(bundled_stores: dict[str, ImageStore]) -> None:
    """Middles of 480x480 by 160 for real ones, of 160x160 by 80 for tests."""
    assert [len(bundled_stores[split]) for split in SPLITS] == [4, 4 * 9, 12 * 4]
    test = bundled_stores["test"]
    assert set(test.heights.tolist()) == set(test.widths.tolist()) == {80}
    installed = importlib.resources.files("skimage") / "data"
    coffee = np.asarray(Image.open(str(installed / "coffee.png")))
    synthetic = bundled_stores["synthetic"]
    assert_array_equal(synthetic.image("clean", synthetic.ids.index("coffee")), coffee)
    brick = np.asarray(Image.open(str(installed / "brick.png")))  # grey, 512x512
    found = test.image("clean", test.ids.index("brick_0000_0080"))
    assert_array_equal(found, np.dstack([brick[176:256, 256:336]] * 3))

    scenes = [set(bundled_stores[split].scenes) for split in SPLITS]
    assert not (scenes[0] & scenes[1] or scenes[0] & scenes[2] or scenes[1] & scenes[2])
    for store in bundled_stores.values():
        assert all(store.has("clean", index) for index in range(len(store)))
        assert not any(store.has("degraded", index) for index in range(len(store)))
