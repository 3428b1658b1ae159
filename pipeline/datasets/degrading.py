"""Stores of degraded images, made in threads and written in order."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from pipeline.config.degradations import Degradation
from pipeline.degradations import degrade
from pipeline.images.pixels import Pixels, as_float, to_uint8
from pipeline.images.store import ImageStore, Record
from pipeline.randomness import numpy_generator
from pipeline.runtime.progress import ProgressBars
from pipeline.runtime.streaming import Ahead, Remade

WORKING_BYTES = 40

"""The most memory that any model takes, working in floats, for each byte of an image's pixels."""


@dataclass(frozen=True)
class Work:
    """Where images are degraded, and where it is told how far they are."""

    pool: ThreadPoolExecutor
    progress: ProgressBars


def degraded_records(
    store: ImageStore,
    settings: Degradation,
    copies: int,
    draw: tuple[str, str],
    suffix: str,
    work: Work,
    enlargement: float = 1,
) -> Remade[Record]:
    """Return the degraded images of a store; a store that is written asks for them in order."""
    count = len(store) * copies
    order = itertools.product(range(len(store)), range(copies))
    jobs = (_job(store, index, copy, settings, draw, enlargement) for index, copy in order)
    ahead = Ahead(jobs, count, work.pool, work.progress, " ".join(draw))

    def records() -> Iterator[Record]:
        for index, copy in itertools.product(range(len(store)), range(copies)):
            collection = store.data_sets[index]
            height, width = _size(store, index, enlargement)
            yield Record(
                id=f"{store.ids[index]}_{copy}" if copies > 1 else store.ids[index],
                scene=store.scenes[index],
                data_set=f"{collection}, {suffix}" if suffix else collection,
                height=height,
                width=width,
                degraded_by="here",
                degraded=partial(ahead.get, (index, copy)),
                clean=partial(_clean, store, index, enlargement),
            )

    return Remade(count, records)


def _job(
    store: ImageStore,
    index: int,
    copy: int,
    settings: Degradation,
    draw: tuple[str, str],
    enlargement: float,
) -> tuple[tuple[int, int], int, Callable[[], Pixels]]:
    """Return what an image is asked for by, the memory of degrading it, and what degrades it."""

    def degraded() -> Pixels:
        generator = numpy_generator("synthesize", *draw, store.ids[index], copy)
        clean = as_float(_clean(store, index, enlargement))
        return to_uint8(degrade(clean, settings, generator))

    height, width = _size(store, index, enlargement)
    return (index, copy), height * width * 3 * WORKING_BYTES, degraded


def _size(store: ImageStore, index: int, enlargement: float) -> tuple[int, int]:
    """Return height and width of an image of the store, enlarged."""
    height, width = store.heights[index], store.widths[index]
    return round(height * enlargement), round(width * enlargement)


def _clean(store: ImageStore, index: int, enlargement: float) -> Pixels:
    """Return a clean image of the store, enlarged."""
    image = store.image("clean", index)
    if enlargement == 1:
        return image
    height, width = _size(store, index, enlargement)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def reader(store: ImageStore, index: int, role: str) -> Callable[[], Pixels]:
    """Return what reads an image of a store when it is called."""
    return lambda: store.image(role, index)
