"""Synthesis: what is made, what is used as it is, what never reaches a training."""

import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from pipeline.config.degradations import GaussianNoise
from pipeline.config.read import check
from pipeline.config.sources import SPLITS
from pipeline.config.tasks import SimulatedReal, SyntheticDomain, Task, TaskSources
from pipeline.datasets import degrading
from pipeline.datasets import synthesize as synthesis
from pipeline.datasets.synthesize import synthesize
from pipeline.degradations import DEGRADATIONS, degrade
from pipeline.images.pixels import as_float, to_uint8
from pipeline.images.store import ROLES, ImageStore
from pipeline.runtime import streaming
from pipeline.runtime.paths import SIMULATED

Pixels = NDArray[np.uint8]
Pack = Callable[..., Path]


def noise(*sigma_255: float) -> GaussianNoise:
    return GaussianNoise("gaussian_noise", (sigma_255[0], sigma_255[-1]))


def make_task(
    synthetic: SyntheticDomain | None = None, simulated_real: SimulatedReal | None = None
) -> Task:
    return Task(
        sources=TaskSources(*["one"] * 7),
        synthetic=synthetic or SyntheticDomain(noise(20), "stored", 3),
        simulated_real=simulated_real,
        test_on_synthetic=False,
        other_cameras=None,
        draws="made",
        restorer=None,
        image_range=(0.0, 1.0),
        learning_rate_factor=1.0,
        protocol="sidd",
    )


CLEAN_TASK = make_task(simulated_real=SimulatedReal(noise(20), 1, 2))
"""For sources that bring clean images only."""


@pytest.fixture
def prepared(tmp_path: Path, pack: Pack) -> dict[str, Path]:
    """The folder of a source that packed no truth."""
    folder = tmp_path / "prepared" / "one"
    pack(folder / "truth.h5")
    return dict.fromkeys(SPLITS, folder)


@pytest.fixture
def clean_source(prepared: dict[str, Path], pack: Pack) -> dict[str, list[Pixels]]:
    """Two clean grey images for each split; their values are far from 0 and 255."""
    images = {}
    for place, split in enumerate(SPLITS):
        images[split] = [
            np.full((40, 50 + number, 3), 110 + 10 * place + number, np.uint8)
            for number in range(2)
        ]
        listed = [
            {
                "id": f"{split}{number}",
                "scene": f"{split} scene",
                "data_set": "ours",
                "clean": image,
            }
            for number, image in enumerate(images[split])
        ]
        pack(prepared[split] / f"{split}.h5", *listed)
    return images


def made(
    task: Task, prepared: dict[str, Path], folder: Path, name: str = "denoise"
) -> dict[str, ImageStore]:
    synthesize(task, name, prepared, prepared["synthetic"], [], folder)
    return {split: ImageStore(folder / f"{split}.h5") for split in SPLITS}


def image_of(store: ImageStore, name: str, role: str = "degraded") -> Pixels:
    return store.image(role, store.ids.index(name))


def test_copies_and_names(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    stores = made(CLEAN_TASK, prepared, tmp_path / "task")
    assert stores["synthetic"].ids == [
        f"synthetic{n}_{copy}" for n in range(2) for copy in range(3)
    ]
    assert stores["real"].ids == ["real0_0", "real0_1", "real1_0", "real1_1"]
    assert stores["test"].ids == ["test0", "test1"]
    for split, store in stores.items():
        assert set(store.scenes) == {f"{split} scene"}
    assert set(stores["synthetic"].data_sets) == {"ours"}
    assert set(stores["real"].data_sets) == {f"ours, {SIMULATED}"}
    assert set(stores["test"].data_sets) == {"ours, simulated real"}
    assert stores["synthetic"].widths.tolist() == [50, 50, 50, 51, 51, 51]


def test_the_noise_has_the_strength_that_was_asked_for(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    """Sigma 20 in 8-bit values; rounding adds 1/12 to the variance."""
    for split, store in made(CLEAN_TASK, prepared, tmp_path / "task").items():
        for index in range(len(store)):
            source = clean_source[split][int(store.ids[index].removeprefix(split)[0])]
            difference = store.image("degraded", index).astype(float) - source
            assert abs(difference.std() - (20**2 + 1 / 12) ** 0.5) < 1
            assert abs(difference.mean()) < 1
            if split != "real":
                assert_array_equal(store.image("clean", index), source)


def test_no_noise_leaves_the_image(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    still = make_task(SyntheticDomain(noise(0), "stored", 1), SimulatedReal(noise(0), 1, 1))
    for split, store in made(still, prepared, tmp_path / "task").items():
        assert store.ids == [f"{split}0", f"{split}1"]
        for index, source in enumerate(clean_source[split]):
            assert_array_equal(store.image("degraded", index), source)


def test_unlabeled_photographs_carry_no_truth(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    store = made(CLEAN_TASK, prepared, tmp_path / "task")["real"]
    assert not any(store.has("clean", index) for index in range(len(store)))
    with h5py.File(tmp_path / "task" / "real.h5") as file:
        assert file["clean"].shape == (0,)
        assert file["degraded"].size == 2 * 3 * (40 * 50 + 40 * 51)
    # it lies in a file of its own, in the same order, for the upper bound alone
    truth = ImageStore(tmp_path / "task" / "truth.h5")
    assert truth.ids == store.ids and not truth.has("degraded", 0)
    for index, name in enumerate(truth.ids):
        source = clean_source["real"][int(name.removeprefix("real")[0])]
        assert_array_equal(truth.image("clean", index), source)


def test_every_image_and_copy_has_noise_of_its_own(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    stores = made(CLEAN_TASK, prepared, tmp_path / "task")
    noises = [
        store.image("degraded", index)[:, :50].astype(int) - store.image("degraded", index).mean()
        for store in stores.values()
        for index in range(len(store))
    ]
    for first in range(len(noises)):
        for second in range(first):
            correlation = np.corrcoef(noises[first].ravel(), noises[second].ravel())[0, 1]
            assert abs(correlation) < 0.1  # 6,000 values: standard deviation 0.013


def test_the_same_bytes_every_time(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    made(CLEAN_TASK, prepared, tmp_path / "first")
    np.random.default_rng(0).random()
    made(CLEAN_TASK, prepared, tmp_path / "second")
    for split in SPLITS:
        first = (tmp_path / "first" / f"{split}.h5").read_bytes()
        assert (tmp_path / "second" / f"{split}.h5").read_bytes() == first
    assert len(list((tmp_path / "first").iterdir())) == 6


@pytest.mark.parametrize("ahead", [1, 2**28])
@pytest.mark.parametrize("threads", [1, 5])
def test_the_bytes_do_not_depend_on_threads_or_memory(
    clean_source: dict[str, list[Pixels]],
    prepared: dict[str, Path],
    tmp_path: Path,
    ahead: int,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = replace(CLEAN_TASK, other_cameras={"another": noise(50)})
    made(task, prepared, tmp_path / "first")
    monkeypatch.setattr(streaming, "AHEAD_BYTES", ahead)
    monkeypatch.setattr(synthesis, "working_threads", lambda: threads)
    made(task, prepared, tmp_path / "again")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_images_are_degraded_in_several_threads_a_few_ahead(
    clean_source: dict[str, list[Pixels]],
    prepared: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: set[int] = set()
    running: list[int] = [0]
    most: list[int] = [0]
    degrade = degrading.degrade

    def watched(*given: Any) -> Any:
        threads.add(threading.get_ident())
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.01)
        running[0] -= 1
        return degrade(*given)

    monkeypatch.setattr(degrading, "degrade", watched)
    monkeypatch.setattr(synthesis, "working_threads", lambda: 4)
    size = 40 * 51 * 3 * degrading.WORKING_BYTES
    for limit, at_once in ((2**28, 4), (2 * size, 2)):
        threads.clear()
        most[0] = 0
        monkeypatch.setattr(streaming, "AHEAD_BYTES", limit)
        made(CLEAN_TASK, prepared, tmp_path / f"task{limit}")
        assert 1 < len(threads) <= 4
        assert 1 < most[0] <= at_once + 1, "one may be taken while the next begins"


def test_no_model_takes_more_memory_than_is_reckoned_with(
    values: dict[str, Any], pixels: Callable[..., Pixels]
) -> None:
    image, models = pixels(1, 256, 320), {}
    for task in check(values).tasks.values():
        simulated = [task.simulated_real.degradation] if task.simulated_real else []
        models |= {made.kind: made for made in [task.synthetic.degradation, *simulated] if made}
    assert set(models) == set(DEGRADATIONS)
    for name, settings in models.items():
        degrade(
            as_float(image[:64, :64]), settings, np.random.default_rng(0)
        )  # what is loaded late
        tracemalloc.start()
        to_uint8(degrade(as_float(image), settings, np.random.default_rng(0)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < degrading.WORKING_BYTES * image.size, name


def test_what_is_used_as_it_is_takes_no_room_of_its_own(
    clean_source: dict[str, list[Pixels]],
    prepared: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anew = replace(CLEAN_TASK, synthetic=SyntheticDomain(noise(5), "anew", 1))
    source = prepared["synthetic"] / "synthetic.h5"
    made(anew, prepared, tmp_path / "linked")
    assert source.samefile(tmp_path / "linked" / "synthetic.h5")
    content = source.read_bytes()
    made(CLEAN_TASK, prepared, tmp_path / "linked")
    assert source.read_bytes() == content, "made anew beside it, not within it"

    def no_links(*given: object) -> None:
        raise OSError("no such links on this disk")

    monkeypatch.setattr(synthesis.os, "link", no_links)
    made(anew, prepared, tmp_path / "copied")
    copied = tmp_path / "copied" / "synthetic.h5"
    assert copied.read_bytes() == content and not source.samefile(copied)
    assert {path.name for path in copied.parent.iterdir()} == {
        f"{name}.h5" for name in ("synthetic", "unpaired", "real", "truth", "test", "validation")
    }


def test_real_and_test_images_are_enlarged_with_their_truth(
    prepared: dict[str, Path], pack: Pack, pixels: Callable[..., Pixels], tmp_path: Path
) -> None:
    image = pixels(1, 16, 20)
    for split in SPLITS:
        listed = {"id": split, "scene": split, "data_set": "ours", "clean": image}
        pack(prepared[split] / f"{split}.h5", listed)
    task = make_task(SyntheticDomain(noise(0), "stored", 1), SimulatedReal(noise(0), 2.5, 1))
    stores = made(replace(task, other_cameras={"other": noise(0)}), prepared, tmp_path / "task")
    soft = np.asarray(PIL.Image.fromarray(image).resize((50, 40), PIL.Image.Resampling.LANCZOS))
    truth = ImageStore(tmp_path / "task" / "truth.h5")
    for found in (
        image_of(stores["real"], "real"),
        image_of(truth, "real", "clean"),
        *(image_of(stores["test"], n, r) for n in ("test", "test other") for r in ROLES[:2]),
    ):
        assert_array_equal(found, soft)
    assert_array_equal(image_of(stores["synthetic"], "synthetic"), image)


def test_noise_depends_on_what_draws_names_not_on_the_task(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    made(CLEAN_TASK, prepared, tmp_path / "one")
    made(CLEAN_TASK, prepared, tmp_path / "same", name="other")
    made(replace(CLEAN_TASK, draws="other"), prepared, tmp_path / "other")
    for split in SPLITS:
        one, same, other = (
            (tmp_path / folder / f"{split}.h5").read_bytes() for folder in ("one", "same", "other")
        )
        assert one == same != other


def test_more_copies_leave_the_first_ones(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    more = replace(CLEAN_TASK, synthetic=SyntheticDomain(noise(20), "stored", 5))
    few = made(CLEAN_TASK, prepared, tmp_path / "few")["synthetic"]
    many = made(more, prepared, tmp_path / "many")["synthetic"]
    for name in few.ids:
        assert_array_equal(image_of(few, name), image_of(many, name))


def test_more_images_leave_the_noise_of_the_others(
    prepared: dict[str, Path], pack: Pack, pixels: Callable[..., Pixels], tmp_path: Path
) -> None:
    images = [{"id": name, "clean": pixels(seed)} for seed, name in enumerate("abc")]
    made_of = {}
    for label, chosen in (("few", images[1:]), ("all", images)):
        for split in SPLITS:
            pack(prepared[split] / f"{split}.h5", *chosen)
        made_of[label] = made(CLEAN_TASK, prepared, tmp_path / label)
    for split in SPLITS:
        few, every = made_of["few"][split], made_of["all"][split]
        for name in few.ids:
            assert_array_equal(image_of(few, name), image_of(every, name))


def test_noise_drawn_anew_needs_only_the_clean_images(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    task = replace(CLEAN_TASK, synthetic=SyntheticDomain(noise(20), "anew", 3))
    store = made(task, prepared, tmp_path / "task")["synthetic"]
    source = prepared["synthetic"] / "synthetic.h5"
    assert store.path.read_bytes() == source.read_bytes()
    assert store.ids == ["synthetic0", "synthetic1"]
    assert not store.has("degraded", 0)


def test_what_a_source_brings_is_used_as_it_is(
    prepared: dict[str, Path], pack: Pack, pixels: Callable[..., Pixels], tmp_path: Path
) -> None:
    pair = {"id": "a", "degraded": pixels(1), "clean": pixels(2)}
    sources = {
        "synthetic": pack(prepared["synthetic"] / "synthetic.h5", pair),
        "real": pack(prepared["real"] / "real.h5", {"id": "b", "degraded": pixels(3)}),
        "test": pack(prepared["test"] / "test.h5", pair),
    }
    stores = made(make_task(), prepared, tmp_path / "task")
    for split, path in sources.items():
        assert (tmp_path / "task" / f"{split}.h5").read_bytes() == path.read_bytes()
        assert not any(SIMULATED in name for name in stores[split].data_sets)
    assert len(ImageStore(tmp_path / "task" / "truth.h5")) == 0


def test_a_packed_truth_is_passed_on_as_it_is(
    prepared: dict[str, Path], pack: Pack, pixels: Callable[..., Pixels], tmp_path: Path
) -> None:
    pair = {"id": "a", "degraded": pixels(1), "clean": pixels(2)}
    for split in ("synthetic", "test"):
        pack(prepared[split] / f"{split}.h5", pair)
    pack(prepared["real"] / "real.h5", {"id": "b", "degraded": pixels(3)})
    truth = pack(prepared["real"] / "truth.h5", {"id": "b", "clean": pixels(4)})
    real = made(make_task(), prepared, tmp_path / "task")["real"]
    assert (tmp_path / "task" / "truth.h5").read_bytes() == truth.read_bytes()
    assert not real.has("clean", 0)


def test_splits_come_from_their_own_sources(
    tmp_path: Path, pack: Pack, pixels: Callable[..., Pixels]
) -> None:
    prepared = {split: tmp_path / "prepared" / f"source of {split}" for split in SPLITS}
    for split in SPLITS:
        pack(prepared[split] / f"{split}.h5", {"id": f"from {split}", "clean": pixels(1)})
    stores = made(CLEAN_TASK, prepared, tmp_path / "task")
    assert stores["synthetic"].ids[0] == "from synthetic_0"
    assert stores["real"].ids[0] == "from real_0"
    assert stores["test"].ids == ["from test"]
