"""The synthetic domain among the test images, and the crops that are scored while training."""

from dataclasses import replace
from pathlib import Path

from numpy.testing import assert_array_equal

from pipeline.images.store import ImageStore
from tests.datasets import test_synthesize
from tests.datasets.test_synthesize import CLEAN_TASK, Pixels, made

prepared = test_synthesize.prepared
clean_source = test_synthesize.clean_source


def test_test_images_of_the_synthetic_domain(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    test = made(replace(CLEAN_TASK, test_on_synthetic=True), prepared, tmp_path / "task")["test"]
    assert test.ids == ["test0", "test1", "test0 synthetic", "test1 synthetic"]
    assert test.domains == ["real", "real", "synthetic", "synthetic"]
    assert test.data_sets[2:] == ["ours, synthetic"] * 2
    assert set(test.degraded_by) == {"here"} and all(test.seen)
    for index in (2, 3):
        assert_array_equal(test.image("clean", index), clean_source["test"][index - 2])
        noise = test.image("degraded", index).astype(float) - test.image("clean", index)
        assert 18 < noise.std() < 22  # sigma 20


def test_validation_has_crops_of_both_domains(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path
) -> None:
    for synthetic_test in (False, True):
        task = replace(CLEAN_TASK, test_on_synthetic=synthetic_test)
        test = made(task, prepared, tmp_path / "task")["test"]
        store = ImageStore(tmp_path / "task" / "validation.h5")
        assert store.data_sets == ["real", "real", "synthetic", "synthetic"]
        assert_array_equal(store.image("degraded", 0), test.image("degraded", 0))
        assert_array_equal(store.image("clean", 2), clean_source["test"][0])
        noise = store.image("degraded", 2).astype(float) - store.image("clean", 2)
        assert 18 < noise.std() < 22


def test_photographs_without_truth_are_validated_on_training_pairs(
    clean_source: dict[str, list[Pixels]], prepared: dict[str, Path], tmp_path: Path, pack: object
) -> None:
    for split in ("real", "test"):
        images = [{"id": f"{split}", "scene": "s", "data_set": "ours", "degraded": image}
                  for image in clean_source[split][:1]]  # fmt: skip
        pack(prepared[split] / f"{split}.h5", *images)  # type: ignore[operator]
    made(replace(CLEAN_TASK, simulated_real=None), prepared, tmp_path / "task")
    store = ImageStore(tmp_path / "task" / "validation.h5")
    assert set(store.data_sets) == {"synthetic"}
    assert set(store.ids) <= {
        f"synthetic synthetic{n}_{copy}" for n in (0, 1) for copy in (0, 1, 2)
    }
