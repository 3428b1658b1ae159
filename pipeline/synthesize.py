"""Make the images of one task: synthetic pairs, other clean ones, unlabeled real ones, test pairs.

What a source brings is used as it is; what it lacks is made by a degradation model. A test image
that was degraded here is named *simulated real* wherever it appears. The truth of real training
images lies in a file of its own, which only a method that is an upper bound opens.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.config.data import Degradation, Split, Task
from pipeline.degradations import degrade
from pipeline.errors import UserError
from pipeline.files import replacing
from pipeline.images import Pixels, as_float, to_uint8
from pipeline.paths import SIMULATED
from pipeline.randomness import numpy_generator
from pipeline.store import ImageStore, Record, write_store


def synthesize(
    task: Task,
    name: str,
    prepared: dict[Split, Path],
    unpaired: Path,
    unseen: list[Path],
    folder: Path,
) -> None:
    """Write synthetic.h5, unpaired.h5, real.h5, truth.h5 and test.h5 of a task.

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
    _synthetic(task, name, stores["synthetic"], folder / "synthetic.h5")
    _unpaired(name, unpaired, prepared["synthetic"], folder / "unpaired.h5")
    for split in ("real", "test"):
        _real(task, name, split, stores[split], folder / f"{split}.h5")
    _add_unseen(task, name, stores["test"], unseen, folder / "test.h5")


def _synthetic(task: Task, name: str, store: ImageStore, path: Path) -> None:
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
        records = _degraded(store, settings.degradation, settings.copies, draw, "")
        write_store(path, list(records))


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


def _real(task: Task, name: str, split: str, store: ImageStore, path: Path) -> None:
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
    records = list(_degraded(store, simulated.degradation, copies, draw, SIMULATED))
    if split == "real":
        # unlabeled: the clean image stays out, so that no method can see it by accident
        write_store(path.with_name("truth.h5"), [replace(r, degraded=None) for r in records])
        records = [replace(record, clean=None) for record in records]
    write_store(path, records)


def _add_unseen(task: Task, name: str, test: ImageStore, unseen: list[Path], path: Path) -> None:
    """Add to the test images those of other cameras and of other sources."""
    cameras = task.other_cameras or {}
    if not cameras and not unseen:
        return
    own = ImageStore(path)
    records = [_same(own, index) for index in range(len(own))]
    for camera, settings in cameras.items():
        if not all(test.has("clean", index) for index in range(len(test))):
            raise UserError(
                f"task {name}: tasks.{name}.other_cameras.{camera} degrades clean test images, but"
                f" the source {test.path.parent.name!r} has some without; set other_cameras to null"
            )
        ending = f"{camera}, {SIMULATED}"
        made = _degraded(test, settings, 1, (task.draws, f"test {camera}"), ending)
        records += [replace(record, id=f"{record.id} {camera}") for record in made]
    for folder in unseen:
        store = ImageStore(folder / "test.h5")
        if len(store) == 0 or not store.has("degraded", 0):
            raise UserError(
                f"task {name}: source {folder.name!r} has no degraded test image; choose other"
                f" sources with tasks.{name}.sources.unseen_a to unseen_c"
            )
        found = [_same(store, index) for index in range(len(store))]
        records += [replace(record, id=f"{folder.name} {record.id}") for record in found]
    write_store(path, records)


def _same(store: ImageStore, index: int) -> Record:
    """Return an image as it is in a store."""
    loaders = {
        role: _reader(store, index, role)
        for role in ("degraded", "clean")
        if store.has(role, index)
    }
    return Record(
        id=store.ids[index],
        scene=store.scenes[index],
        data_set=store.data_sets[index],
        height=int(store.heights[index]),
        width=int(store.widths[index]),
        **loaders,
    )


def _degraded(
    store: ImageStore, settings: Degradation, copies: int, draw: tuple[str, str], suffix: str
) -> Iterator[Record]:
    for index, name in enumerate(store.ids):
        for copy in range(copies):
            yield Record(
                id=f"{name}_{copy}" if copies > 1 else name,
                scene=store.scenes[index],
                data_set=f"{store.data_sets[index]}, {suffix}"
                if suffix
                else store.data_sets[index],
                height=int(store.heights[index]),
                width=int(store.widths[index]),
                degraded=_degrader(store, index, settings, (*draw, name, copy)),
                clean=_reader(store, index, "clean"),
            )


def _degrader(
    store: ImageStore, index: int, settings: Degradation, draw: tuple[int | str, ...]
) -> Callable[[], Pixels]:
    def load() -> Pixels:
        image = as_float(store.image("clean", index))
        degraded = degrade(image, settings, numpy_generator("synthesize", *draw))
        return to_uint8(degraded)

    return load


def _reader(store: ImageStore, index: int, role: str) -> Callable[[], Pixels]:
    return lambda: store.image(role, index)


def _copy(source: Path, target: Path) -> None:
    # the same bytes: DVC's cache keeps them once
    with replacing(target) as partial:
        shutil.copyfile(source, partial)
