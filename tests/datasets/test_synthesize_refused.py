"""What the stage synthesize refuses, and test images never seen in training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pipeline.config.sources import SPLITS
from pipeline.config.tasks import SimulatedReal, SyntheticDomain, TaskSources
from pipeline.datasets.synthesize import synthesize
from pipeline.images.store import ImageStore
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import SIMULATED
from tests.datasets import test_synthesize
from tests.datasets.test_synthesize import (
    CLEAN_TASK,
    Pack,
    Pixels,
    image_of,
    made,
    make_task,
    noise,
)

clean_source = test_synthesize.clean_source
prepared = test_synthesize.prepared


# Mistakes


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_without_images_is_told(
    clean_source: dict[str, list[Pixels]],
    prepared: dict[str, Path],
    pack: Pack,
    tmp_path: Path,
    split: str,
) -> None:
    pack(prepared[split] / f"{split}.h5")
    with pytest.raises(UserError) as caught:
        made(CLEAN_TASK, prepared, tmp_path / "task")
    message = str(caught.value)
    assert message.startswith(f"task denoise: source 'one' has no image for the split {split!r}")
    assert f"tasks.denoise.sources.{split}" in message
    assert not (tmp_path / "task").exists()


def test_no_prepared_images_are_told(prepared: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"synthetic.h5: not found; 'dvc repro'"):
        made(CLEAN_TASK, prepared, tmp_path / "task")


def test_clean_images_need_simulated_real(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    message = r"split 'real' brings clean images only; set tasks.denoise.simulated_real"
    with pytest.raises(UserError, match=message):
        made(make_task(), prepared, tmp_path / "task")


def test_a_simulation_that_nothing_needs_is_refused(
    clean_source: dict[str, list[Pixels]],
    prepared: dict[str, Path],
    pack: Pack,
    pixels: Callable[..., Pixels],
    tmp_path: Path,
) -> None:
    images: dict[str, Any] = {"id": "own", "degraded": pixels(1)}
    for split in ("real", "test"):
        pack(prepared[split] / f"{split}.h5", images)
    with pytest.raises(UserError, match=r"nothing is simulated; set tasks.denoise.simulated_real"):
        made(CLEAN_TASK, prepared, tmp_path / "task")


def test_own_photographs_may_stand_beside_simulated_test_images(
    clean_source: dict[str, list[Pixels]],
    prepared: dict[str, Path],
    pack: Pack,
    pixels: Callable[..., Pixels],
    tmp_path: Path,
) -> None:
    own = pixels(1)
    pack(prepared["real"] / "real.h5", {"id": "own", "degraded": own})
    made(CLEAN_TASK, prepared, tmp_path / "task")
    real = ImageStore(tmp_path / "task" / "real.h5")
    assert len(ImageStore(tmp_path / "task" / "truth.h5")) == 0
    np.testing.assert_array_equal(real.image("degraded", 0), own)
    assert "simulated real" in ImageStore(tmp_path / "task" / "test.h5").data_sets[0]


def test_unpaired_clean_images_are_those_of_their_source(
    prepared: dict[str, Path], clean_source: object, pack: Pack, tmp_path: Path
) -> None:
    image = np.full((30, 40, 3), 7, np.uint8)
    other = tmp_path / "prepared" / "other"
    pack(other / "synthetic.h5", {"id": "o", "clean": image})
    synthesize(CLEAN_TASK, "denoise", prepared, other, [], tmp_path / "task")
    store = ImageStore(tmp_path / "task" / "unpaired.h5")
    assert store.ids == ["o"]
    assert np.array_equal(store.image("clean", 0), image)
    # the source of the pairs itself: nothing is stored twice
    synthesize(CLEAN_TASK, "denoise", prepared, prepared["synthetic"], [], tmp_path / "same")
    assert len(ImageStore(tmp_path / "same" / "unpaired.h5")) == 0


def test_an_unpaired_source_without_clean_images_is_refused(
    prepared: dict[str, Path], clean_source: object, pack: Pack, tmp_path: Path
) -> None:
    other = tmp_path / "prepared" / "other"
    pack(other / "synthetic.h5")
    with pytest.raises(UserError, match=r"'other' has no clean image.*sources\.unpaired"):
        synthesize(CLEAN_TASK, "denoise", prepared, other, [], tmp_path / "task")


def test_no_degradation_and_no_pairs_is_refused(
    prepared: dict[str, Path], clean_source: object, tmp_path: Path
) -> None:
    task = make_task(SyntheticDomain(None, "stored", 1), SimulatedReal(noise(20), 1, 2))
    with pytest.raises(UserError, match="degradation is null, but the source 'one' brings no"):
        synthesize(task, "denoise", prepared, prepared["synthetic"], [], tmp_path / "task")


# Never seen in training


def test_other_cameras_and_sources_are_added_to_the_test_images_only(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path, pack: Pack
) -> None:
    other = tmp_path / "prepared" / "polyu"
    pair = {"id": "test0", "scene": "s", "data_set": "PolyU",
            "degraded": np.full((30, 40, 3), 90, np.uint8),
            "clean": np.full((30, 40, 3), 80, np.uint8)}  # fmt: skip
    alone = {"id": "test1", "scene": "t", "data_set": "DND", "degraded": pair["degraded"]}
    pack(other / "test.h5", pair, alone)
    before = made(CLEAN_TASK, prepared, tmp_path / "before")
    wider = replace(CLEAN_TASK, other_cameras={"strong": noise(60), "weak": noise(2)})
    folder = tmp_path / "task"
    synthesize(wider, "denoise", prepared, prepared["synthetic"], [other], folder)
    for split in ("synthetic", "real"):
        name = f"{split}.h5"
        assert (folder / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    test = ImageStore(folder / "test.h5")
    assert test.ids == ["test0", "test1", "test0 strong", "test1 strong", "test0 weak",
                        "test1 weak", "polyu test0", "polyu test1"]  # fmt: skip
    assert list(dict.fromkeys(test.data_sets)) == [
        f"ours, {SIMULATED}", f"ours, strong, {SIMULATED}", f"ours, weak, {SIMULATED}",
        "PolyU", "DND",
    ]  # fmt: skip
    assert_array_equal(test.image("degraded", 0), before["test"].image("degraded", 0))
    errors = [
        float(np.std(image_of(test, name).astype(int) - image_of(test, name, "clean")))
        for name in ("test0 strong", "test0 weak")
    ]
    assert 40 < errors[0] < 70 and 1 < errors[1] < 3
    assert_array_equal(image_of(test, "polyu test0"), pair["degraded"])
    assert not test.has("clean", 7), "no truth is made up"


def test_unseen_images_must_be_there(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path, pack: Pack
) -> None:
    other = tmp_path / "prepared" / "empty"
    pack(other / "test.h5")
    with pytest.raises(UserError, match=r"'empty' has no degraded test image.*unseen_a"):
        synthesize(CLEAN_TASK, "denoise", prepared, prepared["synthetic"], [other], tmp_path / "t")


def test_a_source_of_its_own_is_none() -> None:
    names = ("s", "u", "r", "t", "polyu", "t", "polyu")
    assert TaskSources(*names).unseen == ["polyu"]
