"""A few small crops, scored while a training goes on: of the real and of the synthetic domain."""

from functools import partial
from pathlib import Path

from pipeline.config.degradations import Degradation
from pipeline.config.tasks import Task
from pipeline.degradations import degrade
from pipeline.images.pixels import Pixels, as_float, to_uint8
from pipeline.images.store import Domain, ImageStore, Record, write_store
from pipeline.randomness import numpy_generator

CROPS = 4
"""Of each domain, from as many scenes as there are."""
SIDE = 128
"""Pixels; smaller images stay whole."""


def write_validation(task: Task, folder: Path) -> None:
    """Write validation.h5 beside the other stores of a task.

    ``real`` are test images that have a clean version. ``synthetic`` are test images of the
    synthetic domain, or the clean crops of ``real`` degraded like it, or, where there are no such,
    training pairs.
    """
    test, synthetic = ImageStore(folder / "test.h5"), ImageStore(folder / "synthetic.h5")
    real = [i for i in _pairs(test) if test.domains[i] == "real" and test.seen[i]]
    records = [_record("real", test, index) for index in _first(test, real)]
    made = [i for i in _pairs(test) if test.domains[i] == "synthetic"] or real
    degradation = task.synthetic.degradation
    if made and degradation is not None:
        given = None if made is not real else degradation
        records += [_record("synthetic", test, i, given) for i in _first(test, made)]
    else:
        clean = [i for i in range(len(synthetic)) if synthetic.has("clean", i)]
        given = None if synthetic.has("degraded", 0) else degradation
        records += [_record("synthetic", synthetic, i, given) for i in _first(synthetic, clean)]
    write_store(folder / "validation.h5", records)


def _pairs(store: ImageStore) -> list[int]:
    return [i for i in range(len(store)) if store.has("degraded", i) and store.has("clean", i)]


def _first(store: ImageStore, indices: list[int]) -> list[int]:
    """Return the first images of different scenes, then others."""
    scenes: dict[str, list[int]] = {}
    for index in indices:
        scenes.setdefault(store.scenes[index], []).append(index)
    first = [of_scene[0] for of_scene in scenes.values()]
    return (first + [index for index in indices if index not in first])[:CROPS]


def _record(
    domain: Domain, store: ImageStore, index: int, degradation: Degradation | None = None
) -> Record:
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
        domain=domain,
        height=rows.stop - rows.start,
        width=columns.stop - columns.start,
        degraded=degraded,
        clean=partial(read, "clean"),
    )


def _middle(side: int) -> slice:
    start = max(0, (side - SIDE) // 2)
    return slice(start, min(side, start + SIDE))
