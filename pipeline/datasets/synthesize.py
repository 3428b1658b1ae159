"""Make the images of one task: synthetic pairs, other clean ones, unlabeled real ones, test pairs.

What a source brings is used as it is; what it lacks is made by a degradation model. A test image
that was degraded here is named *simulated real* wherever it appears. The truth of real training
images lies in a file of its own, which only a method that is an upper bound opens.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.config.sources import Split
from pipeline.config.tasks import Task
from pipeline.datasets.degrading import Work, degraded_records, reader
from pipeline.datasets.validation import write_validation
from pipeline.images.store import ImageStore, Record, write_store
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing
from pipeline.runtime.paths import SIMULATED, SYNTHETIC
from pipeline.runtime.progress import ProgressBars
from pipeline.runtime.streaming import Remade, working_threads


def synthesize(
    task: Task,
    name: str,
    prepared: dict[Split, Path],
    unpaired: Path,
    unseen: list[Path],
    folder: Path,
) -> None:
    """Write the stores of a task: synthetic, unpaired, real, truth, test and validation.h5.

    Args:
        task: its settings.
        name: its name, for messages.
        prepared: for each split, the folder of its source's packed images.
        unpaired: the folder of the source of clean images for the unpaired extension.
        unseen: the folders of sources whose test images are added to the task's own.
        folder: where to write. unpaired.h5 is empty where its images are those of synthetic.h5,
            truth.h5 where real photographs are not simulated and their source packed no truth.

    Raises:
        UserError: a split has no image, or images and settings do not go together.
    """
    stores = {split: ImageStore(path / f"{split}.h5") for split, path in prepared.items()}
    for split, store in stores.items():
        if len(store) == 0:
            raise UserError(
                f"task {name}: source {prepared[split].name!r} has no image for the split"
                f" {split!r}; choose another source with tasks.{name}.sources.{split}"
            )
    if task.simulated_real and all(stores[split].has("degraded", 0) for split in ("real", "test")):
        raise UserError(
            f"task {name}: its sources bring degraded photographs of their own, so nothing is"
            f" simulated; set tasks.{name}.simulated_real to null"
        )
    with ProgressBars(name, "images") as progress, ThreadPoolExecutor(working_threads()) as pool:
        work = Work(pool, progress)
        try:
            _synthetic(task, name, stores["synthetic"], folder / "synthetic.h5", work)
            _unpaired(name, unpaired, prepared["synthetic"], folder / "unpaired.h5")
            for split in ("real", "test"):
                _real(task, name, split, stores[split], folder / f"{split}.h5", work)
            _add_unseen(task, name, stores["test"], unseen, folder / "test.h5", work)
            write_validation(task, folder)
        finally:
            pool.shutdown(cancel_futures=True)


def _synthetic(task: Task, name: str, store: ImageStore, path: Path, work: Work) -> None:
    settings = task.synthetic
    brings_pairs = store.has("degraded", 0)
    if settings.draw == "anew" or brings_pairs:
        _copy(store.path, path)
    elif settings.degradation is None:
        raise UserError(
            f"task {name}: tasks.{name}.synthetic.degradation is null, but the source"
            f" {store.path.parent.name!r} brings no pairs of its own; name a degradation"
        )
    else:
        draw = (task.draws, "synthetic")
        write_store(
            path, degraded_records(store, settings.degradation, settings.copies, draw, "", work)
        )


def _unpaired(name: str, folder: Path, synthetic: Path, path: Path) -> None:
    if folder == synthetic:
        write_store(path, [])
        return
    store = ImageStore(folder / "synthetic.h5")
    if len(store) == 0:
        raise UserError(
            f"task {name}: source {folder.name!r} has no clean image; choose another source with"
            f" tasks.{name}.sources.unpaired"
        )
    _copy(store.path, path)


def _real(task: Task, name: str, split: str, store: ImageStore, path: Path, work: Work) -> None:
    simulated = task.simulated_real
    brings_degraded = store.has("degraded", 0)
    if brings_degraded:
        _copy(store.path, path)
        if split == "real":
            _copy(store.path.with_name("truth.h5"), path.with_name("truth.h5"))
        return
    if simulated is None:
        raise UserError(
            f"task {name}: the source of the split {split!r} brings clean images only; set"
            f" tasks.{name}.simulated_real, or choose another source"
        )
    copies = simulated.copies if split == "real" else 1
    draw = (task.draws, split)
    enlarged = simulated.enlargement
    made = degraded_records(store, simulated.degradation, copies, draw, SIMULATED, work, enlarged)
    if split == "real":
        # unlabeled: the clean image stays out, so that no method can see it by accident
        write_store(path.with_name("truth.h5"), _each(made, lambda r: replace(r, degraded=None)))
        made = _each(made, lambda record: replace(record, clean=None))
    write_store(path, made)


def _add_unseen(
    task: Task, name: str, test: ImageStore, unseen: list[Path], path: Path, work: Work
) -> None:
    """Add to the test images those of the synthetic domain, other cameras and other sources."""
    cameras = task.other_cameras or {}
    own = _all_of(ImageStore(path), "")
    parts = [own if _is_seen(task) else _unseen(own)]
    if task.test_on_synthetic:
        parts += _synthetic_test(task, test, work)
    if not cameras and not unseen and parts == [own]:
        return
    for camera, settings in cameras.items():
        if not all(test.has("clean", index) for index in range(len(test))):
            raise UserError(
                f"task {name}: tasks.{name}.other_cameras.{camera} degrades clean test images, but"
                f" the source {test.path.parent.name!r} has some without; set other_cameras to null"
            )
        ending = f"{camera}, {SIMULATED}"
        draw = (task.draws, f"test {camera}")
        enlarged = task.simulated_real.enlargement if task.simulated_real else 1
        made = degraded_records(test, settings, 1, draw, ending, work, enlarged)
        parts.append(_each(_unseen(made), partial(_ending_with, camera)))
    for folder in unseen:
        store = ImageStore(folder / "test.h5")
        if len(store) == 0 or not store.has("degraded", 0):
            raise UserError(
                f"task {name}: source {folder.name!r} has no degraded test image; choose other"
                f" sources with tasks.{name}.sources.unseen_a to unseen_c"
            )
        brought = _all_of(store, f"{folder.name} ")
        known = (task.sources.synthetic, task.sources.unpaired, task.sources.real)
        parts.append(brought if folder.name in known else _unseen(brought))
    write_store(path, Remade(sum(map(len, parts)), lambda: itertools.chain(*parts)))


def _is_seen(task: Task) -> bool:
    """Return whether the test images' own degradation is the one that is adapted to."""
    return task.simulated_real is not None or task.sources.test == task.sources.real


def _synthetic_test(task: Task, test: ImageStore, work: Work) -> list[Remade[Record]]:
    """Return the clean test images degraded as the synthetic domain is: what adapting costs."""
    degradation = task.synthetic.degradation
    if degradation is None or not all(test.has("clean", index) for index in range(len(test))):
        return []
    draw = (task.draws, "test synthetic")
    made = degraded_records(test, degradation, 1, draw, SYNTHETIC, work)
    marked = _each(made, lambda record: replace(record, domain="synthetic"))
    return [_each(marked, partial(_ending_with, SYNTHETIC))]


def _unseen(records: Sequence[Record]) -> Remade[Record]:
    return _each(records, lambda record: replace(record, seen=False))


def _each(records: Sequence[Record], change: Callable[[Record], Record]) -> Remade[Record]:
    return Remade(len(records), lambda: map(change, records))


def _ending_with(camera: str, record: Record) -> Record:
    return replace(record, id=f"{record.id} {camera}")


def _all_of(store: ImageStore, before: str) -> Remade[Record]:
    """Return the images of a store as they are, something put before their names."""
    return Remade(len(store), lambda: (_same(store, i, before) for i in range(len(store))))


def _same(store: ImageStore, index: int, before: str) -> Record:
    loaders = {
        role: reader(store, index, role) for role in ("degraded", "clean") if store.has(role, index)
    }
    return Record(**store.about(index) | {"id": f"{before}{store.ids[index]}"} | loaders)


def _copy(source: Path, target: Path) -> None:
    """Give a store a second name; where the disk has no such links, copy it.

    Nothing is ever written into a store in place, so that the two cannot change each other.
    """
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), temporary)
        except OSError:
            shutil.copyfile(source, temporary)
