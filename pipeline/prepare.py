"""Unpack, pair, cut and pack the photographs of one source."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config.data import SPLITS, Crop, Source
from pipeline.sources import source_module
from pipeline.sources.photographs import ImageFile, Photograph
from pipeline.store import Record, write_store
from pipeline.tiling import starts


def prepare(settings: Source, archives: Path, folder: Path) -> None:
    """Write synthetic.h5, real.h5 and test.h5; a split that the source lacks is an empty store.

    Raises:
        UserError: an image is damaged, a pair is incomplete or of two sizes, names collide.
    """
    listed = source_module(settings.kind).photographs(settings, archives)
    for split in SPLITS:
        crop = getattr(settings.crops, split)
        chosen = [photograph for photograph in listed if photograph.split == split]
        records = [record for photograph in chosen for record in _records(photograph, crop)]
        write_store(folder / f"{split}.h5", records)


def _records(photograph: Photograph, crop: Crop | None) -> Iterator[Record]:
    file = photograph.clean or photograph.degraded
    if file is None:
        return
    height, width = file.size()
    boxes = [(0, 0, height, width)]
    if crop is not None:
        boxes = [
            (top, left, min(crop.size, height), min(crop.size, width))
            for top in starts(height, crop.size, crop.step)
            for left in starts(width, crop.size, crop.step)
        ]
    for box in boxes:
        place = f"_{box[0]:04d}_{box[1]:04d}" if crop is not None else ""
        yield Record(
            id=f"{photograph.id}{place}",
            scene=photograph.scene,
            data_set=photograph.data_set,
            height=box[2],
            width=box[3],
            degraded=_loader(photograph.degraded, box),
            clean=_loader(photograph.clean, box),
        )


def _loader(
    file: ImageFile | None, box: tuple[int, int, int, int]
) -> Callable[[], NDArray[np.uint8]] | None:
    if file is None:
        return None
    top, left, height, width = box
    return lambda: _decoded(file)[top : top + height, left : left + width]


@functools.lru_cache(maxsize=1)  # neighbouring crops come from one photograph
def _decoded(file: ImageFile) -> NDArray[np.uint8]:
    return file.pixels()
