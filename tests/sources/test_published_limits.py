"""Numbers, limits and truth of published data sets."""

import csv
import dataclasses
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from pipeline.config.sources import Crop, Crops, FetchedSource
from pipeline.datasets import prepare as preparing
from pipeline.datasets.prepare import prepare
from pipeline.images.store import ImageStore
from pipeline.runtime import streaming
from pipeline.runtime.errors import UserError
from pipeline.sources.pairs import chosen, limited
from pipeline.sources.photographs import Photograph
from tests.helpers import miniatures as mini
from tests.sources import test_published
from tests.sources.test_published import Raw, changed

published = test_published.published
raw = test_published.raw
settings = test_published.settings


# Numbers, limits, tables


def test_numbers_are_held_against_the_published_ones(
    raw: Raw, published: dict[str, FetchedSource]
) -> None:
    raw.put({"a.zip": mini.sidd_medium(), "v.zip": mini.sidd_validation()})
    with pytest.raises(UserError, match=r"set: expected 320 images of the split 'real', found 4;"):
        prepare(published["sidd"], raw.folder, raw.prepared)
    right = dataclasses.replace(published["sidd"], expected_images={"real": 4, "test": 6})
    prepare(right, raw.folder, raw.prepared)
    wrong = dataclasses.replace(right, expected_images={"real": 4, "test": 1280})
    with pytest.raises(UserError, match=r"1280 images of the split 'test', found 6.*set\.expected"):
        prepare(wrong, raw.folder, raw.prepared)


def test_max_images_takes_more_when_it_may(
    raw: Raw, settings: Callable[..., FetchedSource]
) -> None:
    raw.put({"train.zip": mini.rain13k(20)})
    listed = raw.listed("rain13k")
    kept = [{p.id for p in limited(settings("rain13k", max_images=n), listed)}
            for n in (3, 10, 20, 99)]  # fmt: skip
    assert [len(ids) for ids in kept] == [3, 10, 20, 20]
    assert kept[0] < kept[1] < kept[2]
    assert raw.prepare("rain13k", max_images=3)["synthetic"].ids == sorted(kept[0])


def test_max_gib_counts_packed_pixels(raw: Raw) -> None:
    raw.put({"train.zip": mini.rain13k(20)})
    pair = 2 * 40 * 48 * 3
    store = raw.prepare("rain13k", max_gib=(7.5 * pair) / 2**30)["synthetic"]
    assert len(store) == 7


def test_max_gib_counts_the_crops_that_are_packed(raw: Raw) -> None:
    """40 x 48 in squares of 32 every 24 are four: 4 x 32 x 32 pixels instead of 40 x 48."""
    raw.put({"train.zip": mini.rain13k(20)})
    crops = Crops(Crop(32, 24, 0), None, None)
    pair = 2 * 4 * 32 * 32 * 3
    store = raw.prepare("rain13k", crops=crops, max_gib=(7.5 * pair) / 2**30)["synthetic"]
    assert len(store) == 7 * 4


def test_limits_are_filled_with_images_that_can_be_read(raw: Raw) -> None:
    bad = {f"input_{number}_": b"no image" for number in range(1, 10)}
    raw.put({"a.zip": changed(mini.rain13k(20), **bad)})
    for limit in ({"max_images": 11}, {"max_gib": (11.5 * 2 * 40 * 48 * 3) / 2**30}):
        assert len(raw.prepare("rain13k", skip_unreadable=True, **limit)["synthetic"]) == 11


def test_small_training_images_are_left_out_and_counted(
    raw: Raw, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = {1: (40, 48), 2: (39, 48), 3: (48, 39), 4: (60, 40), 5: (20, 20)}
    files = {
        f"train/Rain13K/{role}/{n}.png": mini.image(f"{role}{n}.png", *size)
        for n, size in sizes.items()
        for role in ("input", "target")
    }
    raw.put({"train.zip": mini.as_zip(files)})
    assert raw.prepare("rain13k", min_side=40)["synthetic"].ids == ["1", "4"]
    assert "set: left out 3 of 5 images with a side below 40 pixels" in capfd.readouterr().err
    assert len(raw.prepare("rain13k", min_side=40, max_images=2)["synthetic"]) == 2, "filled"
    capfd.readouterr()
    assert len(raw.prepare("rain13k")["synthetic"]) == 5
    assert "left out" not in capfd.readouterr().err


def test_small_test_images_are_kept(raw: Raw) -> None:
    raw.put({"spadata.zip": mini.spa_kaggle()})
    stores = raw.prepare("spa", min_side=41)
    assert (len(stores["real"]), len(stores["test"])) == (0, 3)


def test_limits_leave_the_test_images(raw: Raw) -> None:
    raw.put({"a.zip": mini.sidd_medium(), "v.zip": mini.sidd_validation()})
    stores = raw.prepare("sidd", max_images=1, max_gib=1e-9)
    assert len(stores["real"]) == 0 and len(stores["test"]) == 6


def test_the_table_names_the_files(raw: Raw) -> None:
    raw.put({"train.zip": mini.gopro_restormer()}).prepare("gopro")
    rows = list(csv.DictReader(io.StringIO((raw.prepared / "pairs.csv").read_text())))
    assert rows[0] == {
        "id": "GOPR0372_07_00/000047", "scene": "GOPR0372_07_00", "split": "synthetic",
        "data_set": "GoPro train", "degraded": "train/input/GOPR0372_07_00-000047.png",
        "clean": "train/target/GOPR0372_07_00-000047.png", "height": "40", "width": "48",
    }  # fmt: skip


@pytest.mark.parametrize("ahead", [1, 10_000, 2**28])
@pytest.mark.parametrize("threads", [1, 5])
def test_the_bytes_do_not_depend_on_threads_or_memory(
    raw: Raw, ahead: int, threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw.put({"train.zip": mini.rain13k(12)})
    crops = Crops(Crop(16, 12, 0), None, None)
    raw.prepare("rain13k", crops=crops)
    names = ("synthetic.h5", "real.h5", "truth.h5", "test.h5", "pairs.csv")
    first = [(raw.prepared / name).read_bytes() for name in names]
    monkeypatch.setattr(streaming, "AHEAD_BYTES", ahead)
    monkeypatch.setattr(preparing, "working_threads", lambda: threads)
    raw.prepare("rain13k", crops=crops)
    assert [(raw.prepared / name).read_bytes() for name in names] == first


# The truth of unlabeled photographs


BOUND = "target_supervised"


TRUTHS: dict[str, dict[str, bytes]] = {
    "sidd": {"a.zip": mini.sidd_medium()},
    "spa": {"a.zip": mini.spa_train(), "real_world.txt": mini.spa_list()},
    "realblur": {"RealBlur.tar.gz": mini.as_tar_gz(mini.realblur())},
}


def clean_name(kind: str, name: str) -> str:
    """Return the archive's clean partner of a photograph."""
    if kind == "sidd":
        scene, shot = name.split("/")
        return f"train/{scene}/{scene[:4]}_GT_SRGB_{shot}.PNG"
    if kind == "spa":
        return f"real_world_gt/{name}.png"
    scene, k = name.removeprefix("J/").split("-")
    return f"{mini.BLUR_SETS['J']}/{scene}/gt/gt_{k}.png"


@pytest.mark.parametrize("kind", TRUTHS)
def test_truth_is_packed_for_a_bound_alone(raw: Raw, kind: str) -> None:
    """In a file of its own: what all methods see has the same bytes with it and without."""
    raw.put(TRUTHS[kind])
    crops = Crops(None, Crop(32, 24, 0), None)
    raw.prepare(kind, crops=crops, truth_for=None)
    without = (raw.prepared / "real.h5").read_bytes()
    assert len(ImageStore(raw.prepared / "truth.h5")) == 0
    real = raw.prepare(kind, crops=crops, truth_for=BOUND)["real"]
    assert (raw.prepared / "real.h5").read_bytes() == without
    truth = ImageStore(raw.prepared / "truth.h5")
    assert truth.ids == real.ids and truth.scenes == real.scenes and len(truth) == 16
    assert not any(truth.has("degraded", index) for index in range(len(truth)))
    for index, name in enumerate(truth.ids):
        photograph, top, left = name.rsplit("_", 2)
        expected = mini.pixels(clean_name(kind, photograph))[int(top) :, int(left) :][:32, :32]
        assert_array_equal(truth.image("clean", index), expected)
    rows = csv.DictReader(io.StringIO((raw.prepared / "pairs.csv").read_text()))
    named = {row["id"]: row["clean"] for row in rows if row["split"] == "real"}
    assert named == {name: clean_name(kind, name) for name in named} and len(named) == 4


def test_photographs_may_share_a_truth(raw: Raw) -> None:
    rain = [f"real_world/000/a_{number}.png" for number in (1, 2, 3)]
    truths = ["real_world_gt/t/b.png", "real_world_gt/t/b.png", "real_world_gt/t/c.png"]
    listing = "".join(f"/{a} /{b}\n" for a, b in zip(rain, truths, strict=True)).encode()
    files = mini.images({*rain, *truths})
    raw.put({"a.zip": mini.as_zip(files), "real_world.txt": listing})
    raw.prepare("spa", truth_for=BOUND)
    store = ImageStore(raw.prepared / "truth.h5")
    for index, name in enumerate(truths):
        assert_array_equal(store.image("clean", index), mini.pixels(name))


def test_a_limit_takes_the_same_photographs_with_their_truth(raw: Raw) -> None:
    raw.put({"spadata.zip": mini.spa_kaggle()})
    limit = 2.5 * 40 * 48 * 3 / 2**30
    ids = [raw.prepare("spa", max_gib=limit, truth_for=who)["real"].ids for who in (None, BOUND)]
    assert ids[0] == ids[1] and len(ids[0]) == 2


def test_a_truth_of_another_size_is_told_to_who_needs_it(raw: Raw) -> None:
    small = mini.image("small.png", 20, 24)
    raw.put({"a.zip": changed(mini.sidd_medium(), **{"0001_GT_SRGB_010": small})})
    assert len(raw.prepare("sidd", truth_for=None)["real"]) == 4
    message = raw.refused("sidd", truth_for=BOUND)
    assert f"SIDD: '{mini.SCENES[0]}/010' is (40, 48) (height, width) degraded but" in message


def test_photographs_without_truth_are_no_pairs(settings: Callable[..., FetchedSource]) -> None:
    alone = Photograph("x/1", "real", "x", "SIDD", None, None)
    assert chosen(settings("sidd", truth_for=None), Path("sidd"), [alone]) == [alone]
    with pytest.raises(UserError, match=r"'x/1' has no clean partner, which target_supervised"):
        chosen(settings("sidd", truth_for=BOUND), Path("sidd"), [alone])


def test_memory_hardly_grows_with_the_number_of_images(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond those that may wait 1.5 kB a pair were seen, 4.4 kB with all of them waiting."""
    monkeypatch.setattr(streaming, "MOST_WAITING", 64)
    content = mini.image("x.png", 8, 8)
    peaks = []
    for pairs in (300, 100, 300):  # at first Python's table of interned strings may grow too
        folders = [f"real_world{truth}/000/000-1" for truth in ("", "_gt")]
        names = [f"{folder}/{number}.png" for number in range(pairs) for folder in folders]
        raw.put({"real_world.zip": mini.as_zip(dict.fromkeys(names, content))})
        tracemalloc.start()
        raw.prepare("spa", data_sets=("SPA train",))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 2500 * 200
