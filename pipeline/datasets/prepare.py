"""Unpack, pair, cut and pack the photographs of one source."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config.sources import SPLITS, BundledSource, Crop, FetchedSource, Source
from pipeline.images.pixels import Pixels
from pipeline.images.store import Loader, Record, write_store
from pipeline.runtime.csv_files import csv_text
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.runtime.progress import ProgressBars
from pipeline.runtime.streaming import Ahead, Remade, mapped, working_threads
from pipeline.sources import source_module
from pipeline.sources.archives.reading import readable
from pipeline.sources.pairs import Box, boxes, chosen, limited
from pipeline.sources.photographs import Photograph, Picture, skippable

PAIRS_FILE = "pairs.csv"
TRUTH_FILE = "truth.h5"

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Sized:
    """A photograph, and (height, width) of its images."""

    photograph: Photograph
    size: Size


@dataclass(frozen=True, slots=True)
class _Skippable:
    """A training image whose errors are told with the switch that leaves it out."""

    picture: Picture
    source: str

    @property
    def name(self) -> str:
        return self.picture.name

    def size(self) -> Size:
        with self._naming_the_switch():
            return self.picture.size()

    def pixels(self) -> Pixels:
        with self._naming_the_switch():
            return self.picture.pixels()

    @contextlib.contextmanager
    def _naming_the_switch(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(f"{error}; {skippable(self.source)}") from None


def prepare(settings: Source, archives: Path, folder: Path) -> None:
    """Write synthetic.h5, real.h5 and test.h5; a split that the source lacks is an empty store.

    The clean partners of real.h5's unlabeled photographs lie in truth.h5, cut alike and in the same
    order; it is empty where the source has none or was not asked for them. The table pairs.csv
    tells from which files every photograph came.

    Raises:
        UserError: an image is damaged, a pair is incomplete or of two sizes, names collide.
    """
    name = folder.name
    with readable(archives), ThreadPoolExecutor(working_threads()) as pool:
        listed = source_module(settings.kind).photographs(settings, archives)
        if isinstance(settings, FetchedSource):
            listed = chosen(settings, archives, listed)
        skip = not isinstance(settings, BundledSource) and settings.skip_unreadable
        with ProgressBars(name, "images") as progress:
            if skip:
                listed = _without_unreadable(listed, pool, progress)
            elif not isinstance(settings, BundledSource):
                listed = [_with_switch(photograph, name) for photograph in listed]
            if not isinstance(settings, BundledSource) and settings.min_side is not None:
                listed = _large_enough(listed, settings.min_side, pool, progress)
            if isinstance(settings, FetchedSource):
                listed = limited(settings, listed)
            sized = list(mapped(pool, _sized, listed))
            for split in SPLITS:
                crop = getattr(settings.crops, split)
                group = [item for item in sized if item.photograph.split == split]
                _pack(folder / f"{split}.h5", group, crop, pool, progress)
            truths = [_truth(item) for item in sized if item.photograph.truth is not None]
            _pack(folder / TRUTH_FILE, truths, settings.crops.real, pool, progress)
    write_text(folder / PAIRS_FILE, _table(sized))


def _with_switch(photograph: Photograph, source: str) -> Photograph:
    if photograph.split == "test":
        return photograph
    pictures = (photograph.degraded, photograph.clean, photograph.truth)
    degraded, clean, truth = (p and _Skippable(p, source) for p in pictures)
    return replace(photograph, degraded=degraded, clean=clean, truth=truth)


def _truth(item: _Sized) -> _Sized:
    photograph = item.photograph
    return replace(item, photograph=replace(photograph, degraded=None, clean=photograph.truth))


def _pack(
    path: Path,
    group: Sequence[_Sized],
    crop: Crop | None,
    pool: ThreadPoolExecutor,
    progress: ProgressBars,
) -> None:
    images = sum(1 for _ in _in_packing_order(group))
    decoder = Ahead(_in_packing_order(group), images, pool, progress, path.stem)
    records = Remade(
        sum(len(_places(item, crop)) for item in group),
        lambda: (record for item in group for record in _records(item, crop, decoder)),
    )
    try:
        write_store(path, records)
    finally:
        decoder.close()


def _in_packing_order(
    group: Sequence[_Sized],
) -> Iterator[tuple[Picture, int, Callable[[], Pixels]]]:
    # a store holds all degraded images, then all clean ones
    for role in ("degraded", "clean"):
        for item in group:
            picture: Picture | None = getattr(item.photograph, role)
            if picture is not None:
                yield picture, item.size[0] * item.size[1] * 3, picture.pixels


def _places(item: _Sized, crop: Crop | None) -> list[tuple[str, Box]]:
    """Return the parts of a photograph that are packed, each with the ending of its name."""
    cut = boxes(item.size, crop)
    if cut is None:
        return [("", (0, 0, *item.size))]
    return [(f"_{box[0]:04d}_{box[1]:04d}", box) for box in cut]


def _records(item: _Sized, crop: Crop | None, decoder: Ahead[Pixels]) -> Iterator[Record]:
    photograph = item.photograph
    for place, box in _places(item, crop):
        yield Record(
            id=f"{photograph.id}{place}",
            scene=photograph.scene,
            data_set=photograph.data_set,
            height=box[2],
            width=box[3],
            degraded=_loader(photograph.degraded, box, decoder),
            clean=_loader(photograph.clean, box, decoder),
        )


def _loader(picture: Picture | None, box: Box, decoder: Ahead[Pixels]) -> Loader | None:
    if picture is None:
        return None
    top, left, height, width = box
    return lambda: decoder.get(picture)[top : top + height, left : left + width]


def _pictures(photograph: Photograph) -> list[Picture]:
    pictures = (photograph.degraded, photograph.clean, photograph.truth)
    return [picture for picture in pictures if picture is not None]


def _sized(photograph: Photograph) -> _Sized:
    """Return a photograph with (height, width) of its images.

    Raises:
        UserError: the two images of a pair differ.
    """
    sizes = [picture.size() for picture in _pictures(photograph)]
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        raise UserError(
            f"{photograph.data_set}: {photograph.id!r} is {sizes[0]} (height, width) degraded but"
            f" {sizes[1]} clean; a pair needs one size"
        )
    return _Sized(photograph, sizes[0])


def _size(photograph: Photograph) -> Size:
    (picture, *_) = (p for p in (photograph.degraded, photograph.clean) if p is not None)
    return picture.size()


def _without_unreadable(
    listed: list[Photograph], pool: ThreadPoolExecutor, progress: ProgressBars
) -> list[Photograph]:
    """Leave out the training photographs that cannot be read, naming and counting them.

    A test image that cannot be read is left in, to stop the stage: scores of fewer images than
    published would stand beside published ones.
    """
    kept, task = [], progress.add("checking", len(listed))
    reasons = zip(listed, mapped(pool, _unreadable, listed), strict=True)
    for done, (photograph, reason) in enumerate(reasons, 1):
        progress.reach(task, done, len(listed), fresh=1)
        if reason is None or photograph.split == "test":
            kept.append(photograph)
        else:
            progress.say(f"left out {photograph.id!r}: {reason}")
    if len(kept) < len(listed):
        progress.say(f"left out {len(listed) - len(kept)} of {len(listed)} images")
    return kept


def _large_enough(
    listed: list[Photograph], min_side: int, pool: ThreadPoolExecutor, progress: ProgressBars
) -> list[Photograph]:
    """Leave out the training photographs with a side below ``min_side``, counting them."""
    sides = zip(listed, mapped(pool, lambda p: min(_size(p)), listed), strict=True)
    kept = [p for p, side in sides if side >= min_side or p.split == "test"]
    if len(kept) < len(listed):
        left_out = len(listed) - len(kept)
        progress.say(
            f"left out {left_out} of {len(listed)} images with a side below {min_side} pixels"
        )
    return kept


def _unreadable(photograph: Photograph) -> str | None:
    if photograph.split == "test":
        return None
    try:
        _sized(photograph)
        for picture in _pictures(photograph):
            picture.pixels()
    except UserError as error:
        return str(error)
    return None


def _table(sized: Sequence[_Sized]) -> str:
    rows = []
    for item in sized:
        photograph = item.photograph
        clean = photograph.clean or photograph.truth
        names = [picture.name if picture else "" for picture in (photograph.degraded, clean)]
        about = [photograph.id, photograph.scene, photograph.split, photograph.data_set]
        rows.append([*about, *names, *item.size])
    columns = ("id", "scene", "split", "data_set", "degraded", "clean", "height", "width")
    return csv_text(columns, rows)
