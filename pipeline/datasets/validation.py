"""A few small crops, scored while a training goes on: of the real and of the synthetic domain."""

from functools import partial
from pathlib import Path

from pipeline.config.degradations import Degradation
from pipeline.config.tasks import Task
from pipeline.degradations import degrade
from pipeline.images.pixels import Pixels, as_float, to_uint8
from pipeline.images.store import ImageStore, Record, write_store
from pipeline.randomness import numpy_generator

CROPS = 4
"""Of each domain, from as many scenes as there are."""
SIDE = 128
"""Pixels; smaller images stay whole."""


def write_validation(task: Task, folder: Path) -> None:
    """Write validation.h5 beside the other stores of a task.

    ``real`` are test images that have a clean version; ``synthetic`` are the same clean crops,
    degraded as the synthetic domain is, or pairs that the source of this domain brings. Where no
    test image has a clean version the latter come from training images.
    """
    test, synthetic = ImageStore(folder / "test.h5"), ImageStore(folder / "synthetic.h5")
    records = [_record("real", test, index, None) for index in _chosen(test, "degraded", "clean")]
    degradation = task.synthetic.degradation
    if synthetic.has("degraded", 0):
        store, degradation = synthetic, None
    else:
        store = test if records else synthetic
    roles = ("clean",) if degradation is not None else ("degraded", "clean")
    records += [_record("synthetic", store, index, degradation) for index in _chosen(store, *roles)]
    write_store(folder / "validation.h5", records)


def _chosen(store: ImageStore, *roles: str) -> list[int]:
    """Return the first images of different scenes that have all roles, then others."""
    having = [i for i in range(len(store)) if all(store.has(role, i) for role in roles)]
    scenes: dict[str, list[int]] = {}
    for index in having:
        scenes.setdefault(store.scenes[index], []).append(index)
    first = [indices[0] for indices in scenes.values()]
    return (first + [i for i in having if i not in first])[:CROPS]


def _record(domain: str, store: ImageStore, index: int, degradation: Degradation | None) -> Record:
    """Return a crop of an image; degraded here where a degradation is given."""
    rows, columns = (_middle(int(side)) for side in (store.heights[index], store.widths[index]))

    def read(role: str) -> Pixels:
        return store.image(role, index)[rows, columns]

    def degraded() -> Pixels:
        if degradation is None:
            return read("degraded")
        generator = numpy_generator("validation", domain, store.ids[index])
        return to_uint8(degrade(as_float(read("clean")), degradation, generator))

    return Record(
        id=f"{domain} {store.ids[index]}",
        scene=store.scenes[index],
        data_set=domain,
        height=rows.stop - rows.start,
        width=columns.stop - columns.start,
        degraded=degraded,
        clean=partial(read, "clean"),
    )


def _middle(side: int) -> slice:
    start = max(0, (side - SIDE) // 2)
    return slice(start, min(side, start + SIDE))
