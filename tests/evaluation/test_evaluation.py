"""Evaluation: tables, means and kept images against arithmetic, batches against one by one."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from skimage import data

from pipeline.config.running import Evaluate
from pipeline.evaluation.evaluate import (
    FACTS_FILE,
    IMAGES_FILE,
    MEASURED,
    PERFECT_PSNR,
    TABLE_FILE,
    ImageScore,
    batches,
    evaluate,
    read_table,
)
from pipeline.evaluation.niqe import fit, niqe
from pipeline.images.store import ImageStore
from pipeline.inference.model import load_model
from pipeline.models.restorers.unet import UNet
from pipeline.models.weights import save_tensors
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import DEGRADED, Run
from tests.evaluation.test_niqe import crops

Pixels = NDArray[np.uint8]
RUN = Run("denoise", DEGRADED)
FACTS = {"precision": "bf16", "device": "CPU test"}


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def flat(value: int, height: int = 12, width: int = 14) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def same(image: Any) -> Any:
    return image


def settings(kept: int, **changes: Any) -> Evaluate:
    values = {"batch": 1, "processes": 0, "lpips_weights": None, **changes}
    return Evaluate("fp32", 1, tile=512, tile_overlap=64, kept_images=kept, **values)


def score_all(
    restore: Callable[[Any], Any], path: Path, protocol: str, kept: int, run: Run,
    clean: Path | None = None, **changes: Any,
) -> None:  # fmt: skip
    """Evaluate a function of one image."""

    def many(images: Any) -> Any:
        return [restore(image) for image in images]

    evaluate(many, path, clean or path, protocol, settings(kept, **changes), run, FACTS)


def psnr(difference: float) -> float:
    """Return the PSNR of a difference that is the same everywhere, 8-bit values."""
    return 20 * math.log10(255 / difference)


def ssim(one: float, other: float) -> float:
    """Return the SSIM of two flat images, 8-bit values: only their means differ."""
    c1 = (0.01 * 255) ** 2
    return (2 * one * other + c1) / (one**2 + other**2 + c1)


@pytest.fixture
def test_images(tmp_path: Path, pack: Callable[..., Path]) -> Path:
    """Three flat pairs in two data sets; differences 10, 20 and 40."""
    about = [("a", "first", 110, 100), ("b", "second", 120, 100), ("c", "first", 60, 100)]
    images = [
        {
            "id": name,
            "scene": f"scene {name}",
            "data_set": data_set,
            "degraded": flat(degraded),
            "clean": flat(clean),
        }
        for name, data_set, degraded, clean in about
    ]
    return pack(tmp_path / "test.h5", *images)


def test_the_means_by_hand(test_images: Path) -> None:
    score_all(same, test_images, "rgb", 0, RUN)
    assert Path("reports/metrics/denoise/degraded.json") == RUN.metrics
    found = json.loads(RUN.metrics.read_text())
    assert list(found) == ["first", "second"]
    assert found["first"]["psnr"] == pytest.approx((psnr(10) + psnr(40)) / 2, rel=1e-9)
    assert found["first"]["ssim"] == pytest.approx((ssim(110, 100) + ssim(60, 100)) / 2, rel=1e-6)
    assert found["first"]["images"] == 2
    assert found["second"]["psnr"] == pytest.approx(psnr(20), rel=1e-9)
    assert found["second"]["images"] == 1
    assert {entry["protocol"] for entry in found.values()} == {"rgb"}
    assert set(found["first"]) == {"psnr", "ssim", "images", "protocol"}


def test_the_protocol_is_the_one_named(test_images: Path) -> None:
    """The luma of a grey value x is 16 + 219 / 255 x, so differences shrink by 219 / 255."""
    score_all(same, test_images, "y", 0, RUN)
    found = json.loads(RUN.metrics.read_text())["second"]
    assert found["protocol"] == "y"
    assert found["psnr"] == pytest.approx(psnr(20 * 219 / 255), rel=1e-9)


def test_every_image_has_a_row(test_images: Path) -> None:
    score_all(same, test_images, "rgb", 0, RUN)
    path = Path("data/evaluations/denoise/degraded/per_image.csv")
    assert path == RUN.evaluation / TABLE_FILE
    lines = path.read_bytes().decode().split("\n")
    assert lines[0] == ("data_set,scene,id,domain,degraded_by,seen,protocol,psnr,ssim,lpips")
    about = ["real", "camera", "True", "rgb"]
    assert [line.split(",")[:7] for line in lines[1:4]] == [
        ["first", "scene a", "a", *about],
        ["second", "scene b", "b", *about],
        ["first", "scene c", "c", *about],
    ]
    assert float(lines[1].split(",")[7]) == pytest.approx(psnr(10), rel=1e-9)
    assert lines[4:] == [""]


def test_what_the_model_returns_is_scored(test_images: Path) -> None:
    """Adding 5 / 255 leaves differences of 15, 25 and 35; values beyond 1 are clamped."""
    score_all(lambda image: image + np.float32(5 / 255), test_images, "rgb", 3, RUN)
    rows = read_table(RUN.evaluation / TABLE_FILE)
    assert [row.psnr for row in rows] == pytest.approx([psnr(15), psnr(25), psnr(35)], rel=1e-9)
    score_all(lambda image: image + np.float32(1), test_images, "sidd", 3, RUN)
    rows = read_table(RUN.evaluation / TABLE_FILE)
    assert [row.psnr for row in rows] == pytest.approx([psnr(155)] * 3, rel=1e-6)
    store = ImageStore(RUN.evaluation / IMAGES_FILE)
    assert_array_equal(store.image("restored", 2), flat(255))


def test_the_model_gets_float_images_in_0_to_1(test_images: Path) -> None:
    seen = []
    score_all(lambda image: (seen.append(image), image)[1], test_images, "rgb", 0, RUN)
    assert [image.dtype for image in seen] == [np.float32] * 3
    assert [image.shape for image in seen] == [(12, 14, 3)] * 3
    assert [float(image.max()) for image in seen] == pytest.approx([110 / 255, 120 / 255, 60 / 255])


@pytest.mark.parametrize(
    ("kept", "expected"),
    [(0, []), (1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])],
)
def test_kept_images_are_spread_evenly(
    tmp_path: Path, pack: Callable[..., Path], kept: int, expected: list[int]
) -> None:
    widths = [13, 14, 15, 16, 17]
    images = [
        {
            "id": f"i{n}",
            "scene": f"s{n}",
            "degraded": flat(n, 12, width),
            "clean": flat(9, 12, width),
        }
        for n, width in enumerate(widths)
    ]
    score_all(same, pack(tmp_path / "test.h5", *images), "rgb", kept, RUN)
    store = ImageStore(RUN.evaluation / IMAGES_FILE)
    assert store.ids == [f"i{number}" for number in expected]
    assert store.scenes == [f"s{number}" for number in expected]
    for index, number in enumerate(expected):
        assert_array_equal(store.image("restored", index), flat(number, 12, widths[number]))
        assert not store.has("clean", index) and not store.has("degraded", index)
    assert len(read_table(RUN.evaluation / TABLE_FILE)) == 5


@pytest.mark.parametrize(("images", "kept"), [(16, 6), (7, 3), (100, 7), (3, 2), (10, 9)])
def test_as_many_are_kept_as_asked_for(
    tmp_path: Path, pack: Callable[..., Path], images: int, kept: int
) -> None:
    listed = [{"id": str(number), "degraded": flat(1, 2, 2)} for number in range(images)]
    score_all(same, pack(tmp_path / "test.h5", *listed), "rgb", kept, RUN)
    numbers = [int(name) for name in ImageStore(RUN.evaluation / IMAGES_FILE).ids]
    assert len(numbers) == kept
    assert numbers[0] == 0 and numbers[-1] == images - 1
    step = (images - 1) / (kept - 1)
    assert set(np.diff(numbers)) <= {math.floor(step), math.ceil(step)}


def test_every_data_set_keeps_its_own(tmp_path: Path, pack: Callable[..., Path]) -> None:
    """A small one beside a large one is not thinned out."""
    listed = [
        {"id": f"{name}{number}", "data_set": name, "degraded": flat(1, 2, 2)}
        for name, count in (("large", 100), ("small", 4))
        for number in range(count)
    ]
    score_all(same, pack(tmp_path / "test.h5", *listed), "rgb", 4, RUN)
    assert ImageStore(RUN.evaluation / IMAGES_FILE).ids == [
        "large0", "large33", "large66", "large99", "small0", "small1", "small2", "small3",
    ]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 7])
def test_failures_are_kept_beside_them(
    tmp_path: Path, pack: Callable[..., Path], batch: int
) -> None:
    """Restored images are all 10 from the truth: the nearer one was before, the less it gained."""
    away = {3: 9, 8: 8, 9: 7, 12: 6, 17: 5, 19: 4}
    images = [
        {"id": str(n), "degraded": flat(110 - away.get(n, 50)), "clean": flat(110)}
        for n in range(20)
    ]
    path = pack(tmp_path / "test.h5", *images)
    run = Run("denoise", "vanilla", 0)
    score_all(lambda image: image * 0 + np.float32(100 / 255), path, "y", 2, run, batch=batch)
    # the first and the last, and five failures, of which the last is one
    assert ImageStore(run.evaluation / IMAGES_FILE).ids == ["0", "8", "9", "12", "17", "19"]
    score_all(same, path, "y", 0, run)
    assert ImageStore(run.evaluation / IMAGES_FILE).ids == []


@pytest.mark.parametrize("processes", [0, 1])
def test_the_score_of_an_image_is_computed_once(
    tmp_path: Path, pack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """For the gain only the degraded input's is added, and without failures not even that."""
    images = [{"id": str(n), "degraded": flat(n), "clean": flat(100)} for n in range(3)]
    path = pack(tmp_path / "test.h5", *images, {"id": "unpaired", "degraded": flat(9)})
    seen: list[int] = []

    def count(image: Any, clean: Any, protocol: str) -> float:
        seen.append(round(255 * float(image[0, 0, 0])))
        return 1.0

    monkeypatch.setattr("pipeline.evaluation.kept_images.psnr", count)
    run = Run("denoise", "vanilla", 0)
    score_all(lambda image: image + np.float32(0.1), path, "rgb", 1, run, processes=processes)
    assert seen == [0, 1, 2]
    seen.clear()
    score_all(same, path, "rgb", 1, RUN, processes=processes)
    assert seen == []


def test_images_without_truth_are_restored_but_not_scored(
    tmp_path: Path, pack: Callable[..., Path]
) -> None:
    scored = {"id": "a", "data_set": "pairs", "degraded": flat(20), "clean": flat(30)}
    unscored = {"id": "b", "data_set": "own", "degraded": flat(40)}
    score_all(same, pack(tmp_path / "test.h5", unscored, scored), "rgb", 2, RUN)
    rows = read_table(RUN.evaluation / TABLE_FILE)
    assert rows[0] == ImageScore("own", "scene", "b", "real", "camera", True, "rgb", None, None)
    assert rows[1].psnr == pytest.approx(psnr(10), rel=1e-9)
    assert list(json.loads(RUN.metrics.read_text())) == ["pairs"]
    assert ImageStore(RUN.evaluation / IMAGES_FILE).ids == ["b", "a"]

    score_all(same, pack(tmp_path / "test.h5", unscored), "rgb", 2, RUN)
    assert json.loads(RUN.metrics.read_text()) == {}


@pytest.mark.parametrize("processes", [0, 1])
def test_where_there_is_no_truth_niqe_is_measured(
    tmp_path: Path, pack: Callable[..., Path], processes: int
) -> None:
    """Fitted on the clean photographs that are given, of every image that is large enough."""
    photographs = list(crops())
    images = ({"id": str(n), "clean": image} for n, image in enumerate(photographs))
    clean = pack(tmp_path / "clean.h5", *images)
    truth = photographs[0]
    noise = np.random.default_rng(0).normal(0, 20, truth.shape)
    noisy = np.clip(np.rint(truth + noise), 0, 255).astype(np.uint8)
    test = pack(
        tmp_path / "test.h5",
        {"id": "a", "data_set": "own", "degraded": noisy},
        {"id": "b", "data_set": "own", "degraded": noisy[:90]},
        {"id": "c", "data_set": "pairs", "degraded": noisy[:12], "clean": truth[:12]},
        {"id": "d", "data_set": "pairs", "degraded": noisy},
    )
    score_all(same, test, "rgb", 0, RUN, clean, processes=processes)
    measured, *others = read_table(RUN.evaluation / TABLE_FILE)
    expected = niqe(noisy / np.float32(255), fit(one / np.float32(255) for one in photographs))
    assert measured.niqe == expected and expected is not None and expected > 8
    assert [row.niqe for row in others] == [None] * 3
    assert json.loads((RUN.evaluation / FACTS_FILE).read_text())["niqe"] == MEASURED
    assert list(json.loads(RUN.metrics.read_text())) == ["pairs"]


def test_too_few_clean_photographs_for_niqe_are_told(
    tmp_path: Path, pack: Callable[..., Path], test_images: Path
) -> None:
    test = pack(tmp_path / "test.h5", {"id": "a", "degraded": data.astronaut()})
    score_all(same, test, "rgb", 0, RUN, test_images)
    assert "niqe" not in (RUN.evaluation / TABLE_FILE).read_text()
    assert json.loads((RUN.evaluation / FACTS_FILE).read_text())["niqe"] == (
        "0 sharp patches of 96 pixels in the clean photographs, expected at least 72; give more"
        " or larger ones"
    )


def test_where_there_is_truth_it_is_not_looked_at(tmp_path: Path, test_images: Path) -> None:
    score_all(same, test_images, "rgb", 0, RUN, tmp_path / "none.h5")
    assert "niqe" not in (RUN.evaluation / TABLE_FILE).read_text()
    assert "niqe" not in (RUN.evaluation / FACTS_FILE).read_text()


@pytest.mark.parametrize("protocol", ["sidd", "y", "rgb"])
def test_a_perfect_image_has_a_finite_score(
    tmp_path: Path, pack: Callable[..., Path], pixels: Callable[..., Pixels], protocol: str
) -> None:
    image = pixels(1)
    path = pack(tmp_path / "test.h5", {"id": "a", "degraded": image, "clean": image})
    score_all(same, path, protocol, 1, RUN)
    (row,) = read_table(RUN.evaluation / TABLE_FILE)
    assert row.psnr == PERFECT_PSNR == 100
    assert row.ssim == pytest.approx(1, abs=1e-9)
    assert json.loads(RUN.metrics.read_text())["set"]["psnr"] == 100


def test_the_table_comes_back_as_it_was(tmp_path: Path, pack: Callable[..., Path]) -> None:
    odd = 'comma, "quote", Größe 写真\nsecond line'
    image = {"id": odd, "scene": f"s {odd}", "data_set": f"d {odd}"}
    path = pack(tmp_path / "test.h5", {**image, "degraded": flat(20), "clean": flat(27)})
    score_all(same, path, "rgb", 0, RUN)
    (row,) = read_table(RUN.evaluation / TABLE_FILE)
    assert (row.id, row.scene, row.data_set) == (odd, f"s {odd}", f"d {odd}")
    means = json.loads(RUN.metrics.read_text())[f"d {odd}"]
    assert (row.psnr, row.ssim) == (means["psnr"], means["ssim"])  # to the last bit


def test_seed_and_method_name_the_files(test_images: Path) -> None:
    score_all(same, test_images, "rgb", 0, Run("derain", "noise_space", 3))
    assert Path("data/evaluations/derain/noise_space-3/per_image.csv").is_file()
    assert Path("data/evaluations/derain/noise_space-3/restored.h5").is_file()
    assert Path("reports/metrics/derain/noise_space-3.json").is_file()


def test_twice_gives_the_same_bytes(test_images: Path) -> None:
    files = [RUN.evaluation / TABLE_FILE, RUN.evaluation / IMAGES_FILE, RUN.metrics]
    score_all(same, test_images, "sidd", 2, RUN)
    first = [path.read_bytes() for path in files]
    score_all(same, test_images, "sidd", 2, RUN)
    assert [path.read_bytes() for path in files] == first


def test_an_image_too_small_to_score_is_named(tmp_path: Path, pack: Callable[..., Path]) -> None:
    small = {"id": "tiny", "degraded": flat(1, 10, 30), "clean": flat(2, 10, 30)}
    path = pack(tmp_path / "test.h5", small)
    with pytest.raises(UserError, match=r"test.h5: image 'tiny': image of 30x10 pixels: .*'y'"):
        score_all(same, path, "y", 0, RUN)
    assert not RUN.metrics.exists()


def test_missing_files_are_told() -> None:
    with pytest.raises(UserError, match=r"test.h5: not found; 'dvc repro'"):
        score_all(same, Path("test.h5"), "rgb", 0, RUN)
    with pytest.raises(UserError, match=r"per_image.csv: not found; 'dvc repro'"):
        read_table(Path("per_image.csv"))


def test_a_model_that_gives_nonsense_is_told(test_images: Path) -> None:
    with pytest.raises(UserError, match="turns 'a' into values that are not finite"):
        score_all(lambda image: image * math.nan, test_images, "rgb", 0, RUN)
    assert not RUN.metrics.exists()


# Batches, processes, facts


@pytest.fixture
def mixed(tmp_path: Path, pack: Callable[..., Path], pixels: Callable[..., Pixels]) -> Path:
    """Seven random pairs of two sizes, in no order."""
    images = [
        {
            "id": str(number),
            "degraded": pixels(number, 24, width),
            "clean": pixels(99, 24, width),
        }
        for number, width in enumerate([20, 24, 20, 20, 24, 20, 20])
    ]
    return pack(tmp_path / "mixed.h5", *images)


def test_batches_are_of_equal_size_and_no_image_is_lost(mixed: Path) -> None:
    assert batches(ImageStore(mixed), 2) == [[0, 2], [3, 5], [6], [1, 4]]
    assert batches(ImageStore(mixed), 100) == [[0, 2, 3, 5, 6], [1, 4]]


@pytest.mark.parametrize(("batch", "processes"), [(2, 0), (5, 0), (1, 1), (3, 2)])
def test_batches_and_processes_change_no_byte(mixed: Path, batch: int, processes: int) -> None:
    files = [RUN.evaluation / TABLE_FILE, RUN.evaluation / IMAGES_FILE, RUN.metrics]
    score_all(same, mixed, "rgb", 7, RUN)
    one_by_one = [path.read_bytes() for path in files]
    assert [row.id for row in read_table(files[0])] == list("0123456")
    score_all(same, mixed, "rgb", 7, RUN, batch=batch, processes=processes)
    assert [path.read_bytes() for path in files] == one_by_one


def test_batches_of_a_network_differ_by_rounding_alone(mixed: Path) -> None:
    """Sums of fp32 in another order: 1e-7 in a pixel, 1e-8 dB in a score were seen.

    Of protocol sidd: the others round to 8 bits, where 1e-7 may become 1.
    """
    torch.manual_seed(0)
    facts = {"restorer": {"kind": "unet", "levels": 2, "channels": 8}, "image_range": [0.0, 1.0]}
    save_tensors(Path("model"), UNet(levels=2, channels=8).state_dict(), facts)
    scores = {}
    for batch in (1, 3):
        restore = load_model(Path("model"), settings(0)).restore_equal
        evaluate(restore, mixed, mixed, "sidd", settings(0, batch=batch), RUN, FACTS)
        rows = read_table(RUN.evaluation / TABLE_FILE)
        scores[batch] = np.array([(row.psnr, row.ssim) for row in rows], np.float64)
    assert np.abs(scores[3] - scores[1]).max() <= 1e-6
    assert np.ptp(scores[1], axis=0).min() > 1e-3, "images whose scores differ"


@pytest.mark.parametrize("processes", [0, 1])
def test_an_error_in_a_process_is_told_all_the_same(
    tmp_path: Path, pack: Callable[..., Path], processes: int
) -> None:
    small = {"id": "tiny", "degraded": flat(1, 10, 30), "clean": flat(2, 10, 30)}
    path = pack(tmp_path / "test.h5", small)
    with pytest.raises(UserError, match=r"test.h5: image 'tiny': image of 30x10 pixels: .*'y'"):
        score_all(same, path, "y", 0, RUN, processes=processes)


def test_facts_say_what_was_not_measured_and_why(test_images: Path) -> None:
    score_all(same, test_images, "rgb", 0, RUN)
    facts = json.loads((RUN.evaluation / "facts.json").read_text())
    assert facts == {**FACTS, "lpips": "evaluate.lpips_weights names no file of weights"}
    score_all(same, test_images, "rgb", 0, RUN, lpips_weights="nowhere.pth")
    facts = json.loads((RUN.evaluation / "facts.json").read_text())
    assert facts["lpips"] == "nowhere.pth was not found"
