"""Unpack, pair, cut and pack the photographs of one source."""

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config.data import SPLITS, BundledSource, Crop, FetchedSource, Source
from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.images import Pixels
from pipeline.progress import Progress
from pipeline.sources import source_module
from pipeline.sources.archives import readable
from pipeline.sources.pairs import Box, boxes, chosen, limited
from pipeline.sources.photographs import Photograph, Picture, decoding_threads
from pipeline.store import Loader, Record, write_store

AHEAD_BYTES = 256 * 2**20
"""Decoded pixels that may wait to be packed, whatever the source."""
PAIRS_FILE = "pairs.csv"
TRUTH_FILE = "truth.h5"

Size = tuple[int, int]


@dataclass(frozen=True)
class _Sized:
    """A photograph, and (height, width) of its images."""

    photograph: Photograph
    size: Size


def prepare(settings: Source, archives: Path, folder: Path) -> None:
    """Write synthetic.h5, real.h5 and test.h5; a split that the source lacks is an empty store.

    The clean partners of real.h5's unlabeled photographs lie in truth.h5, cut alike and in the same
    order; it is empty where the source has none or was not asked for them. The table pairs.csv
    tells from which files every photograph came.

    Raises:
        UserError: an image is damaged, a pair is incomplete or of two sizes, names collide.
    """
    name = folder.name
    with readable(archives), ThreadPoolExecutor(decoding_threads()) as pool:
        listed = source_module(settings.kind).photographs(settings, archives)
        if isinstance(settings, FetchedSource):
            listed = chosen(settings, name, listed)
        skip = not isinstance(settings, BundledSource) and settings.skip_unreadable
        with Progress(name, "images") as progress:
            if skip:
                listed = _without_unreadable(listed, pool, progress)
            if isinstance(settings, FetchedSource):
                listed = limited(settings, listed)
            sized = list(pool.map(_sized, listed))
            for split in SPLITS:
                crop = getattr(settings.crops, split)
                group = [item for item in sized if item.photograph.split == split]
                _pack(folder / f"{split}.h5", group, crop, pool, progress)
            truths = [_truth(item) for item in sized if item.photograph.truth is not None]
            _pack(folder / TRUTH_FILE, truths, settings.crops.real, pool, progress)
    write_text(folder / PAIRS_FILE, _table(sized))


def _truth(item: _Sized) -> _Sized:
    photograph = item.photograph
    return replace(item, photograph=replace(photograph, degraded=None, clean=photograph.truth))


def _pack(
    path: Path,
    group: Sequence[_Sized],
    crop: Crop | None,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> None:
    decoder = _Decoder(_in_packing_order(group), pool, progress, path.stem)
    try:
        write_store(path, [record for item in group for record in _records(item, crop, decoder)])
    finally:
        decoder.close()


def _in_packing_order(group: Sequence[_Sized]) -> list[tuple[Picture, Size]]:
    # a store holds all degraded images, then all clean ones
    degraded = [(item.photograph.degraded, item.size) for item in group]
    clean = [(item.photograph.clean, item.size) for item in group]
    return [(picture, size) for picture, size in degraded + clean if picture is not None]


class _Decoder:
    """Decodes images in threads, a bounded number of bytes ahead of the one that is asked for."""

    def __init__(
        self,
        order: list[tuple[Picture, Size]],
        pool: ThreadPoolExecutor,
        progress: Progress,
        title: str,
    ) -> None:
        """Take the images in the order in which they will be asked for."""
        self._order = iter(order)
        self._pool, self._progress = pool, progress
        self._task = progress.add(title, len(order))
        self._total, self._done = len(order), 0
        self._waiting: deque[tuple[Picture, int, Future[Pixels]]] = deque()
        self._waiting_bytes = 0
        self._current: tuple[Picture, Pixels] | None = None
        self._next = next(self._order, None)

    def pixels(self, picture: Picture) -> Pixels:
        """Return an image, the last one again or the next in order."""
        while self._current is None or self._current[0] is not picture:
            self._current = None  # frees its memory before the next one is waited for
            self._look_ahead()
            found, size, future = self._waiting.popleft()
            self._waiting_bytes -= size
            self._current = (found, future.result())
            self._done += 1
            self._progress.reach(self._task, self._done, self._total, fresh=1)
        return self._current[1]

    def close(self) -> None:
        """Drop what was not asked for."""
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def _look_ahead(self) -> None:
        while self._next is not None:
            picture, (height, width) = self._next
            size = height * width * 3
            if self._waiting and self._waiting_bytes + size > AHEAD_BYTES:
                return
            self._waiting.append((picture, size, self._pool.submit(picture.pixels)))
            self._waiting_bytes += size
            self._next = next(self._order, None)


def _records(item: _Sized, crop: Crop | None, decoder: _Decoder) -> Iterator[Record]:
    photograph, cut = item.photograph, boxes(item.size, crop)
    for box in cut or [(0, 0, *item.size)]:
        place = f"_{box[0]:04d}_{box[1]:04d}" if cut else ""
        yield Record(
            id=f"{photograph.id}{place}",
            scene=photograph.scene,
            data_set=photograph.data_set,
            height=box[2],
            width=box[3],
            degraded=_loader(photograph.degraded, box, decoder),
            clean=_loader(photograph.clean, box, decoder),
        )


def _loader(picture: Picture | None, box: Box, decoder: _Decoder) -> Loader | None:
    if picture is None:
        return None
    top, left, height, width = box
    return lambda: decoder.pixels(picture)[top : top + height, left : left + width]


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


def _without_unreadable(
    listed: list[Photograph], pool: ThreadPoolExecutor, progress: Progress
) -> list[Photograph]:
    """Leave out the training photographs that cannot be read, naming and counting them.

    A test image that cannot be read is left in, to stop the stage: scores of fewer images than
    published would stand beside published ones.
    """
    kept, task = [], progress.add("checking", len(listed))
    reasons = zip(listed, pool.map(_unreadable, listed), strict=True)
    for done, (photograph, reason) in enumerate(reasons, 1):
        progress.reach(task, done, len(listed), fresh=1)
        if reason is None or photograph.split == "test":
            kept.append(photograph)
        else:
            progress.say(f"left out {photograph.id!r}: {reason}")
    if len(kept) < len(listed):
        progress.say(f"left out {len(listed) - len(kept)} of {len(listed)} images")
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "scene", "split", "data_set", "degraded", "clean", "height", "width"])
    for item in sized:
        photograph = item.photograph
        clean = photograph.clean or photograph.truth
        names = [picture.name if picture else "" for picture in (photograph.degraded, clean)]
        about = [photograph.id, photograph.scene, photograph.split, photograph.data_set]
        writer.writerow([*about, *names, *item.size])
    return text.getvalue()
