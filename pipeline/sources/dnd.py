"""DND: real noise of four cameras, 50 photographs without truth (Plötz and Roth, CVPR 2017).

MATLAB files of version 7.3 (HDF5), as the authors' code reads them: ``images_srgb/NNNN.mat`` with
``InoisySRGB`` in [0, 1], axes (3, width, height), and ``info.mat`` with ``info/boundingboxes``, for
each photograph 20 boxes of 512x512: first row, first column, last row, last column, from 1.
"""

import functools
import io
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.sources import FetchedSource
from pipeline.images.pixels import to_uint8
from pipeline.runtime.errors import UserError
from pipeline.sources.photographs import ImageFile, Photograph, files_in

_IMAGE = re.compile(r"(?:^|/)images_srgb/(?P<number>\d{4})\.mat$")

Box = tuple[int, int, int, int]
"""First row, first column, height, width."""


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return the noisy crops.

    Raises:
        UserError: a file is missing, damaged or of another layout.
    """
    files = files_in(folder)
    images = {match["number"]: f for f in files if (match := _IMAGE.search(f.name))}
    infos = [file for file in files if Path(file.name).name == "info.mat"]
    if not images:
        return []
    if not infos:
        raise UserError("DND: info.mat is missing; it holds the places of the crops")
    boxes = _boxes(infos[0])
    listed = []
    for number, file in sorted(images.items()):
        if int(number) > len(boxes):
            raise UserError(f"DND: {file.name} has no bounding boxes in info.mat")
        listed += [
            Photograph(f"{number}_{index:02d}", "test", number, "DND", Cut(file, box), None)
            for index, box in enumerate(boxes[int(number) - 1], 1)
        ]
    return listed


@dataclass(frozen=True)
class Cut:
    """A crop of one photograph."""

    file: ImageFile
    box: Box

    @property
    def name(self) -> str:
        """The file and the place in it."""
        return f"{self.file.name}{list(self.box)}"

    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.box[2:]

    def pixels(self) -> NDArray[np.uint8]:
        """Return the crop (height, width, 3) uint8 RGB, rounded from the file's floats."""
        top, left, height, width = self.box
        with _reading:
            image = _image(self.file)
        return image[top : top + height, left : left + width]


_reading = threading.Lock()


@functools.lru_cache(maxsize=1)
def _image(file: ImageFile) -> NDArray[np.uint8]:
    values = _read(file, lambda opened: np.asarray(opened["InoisySRGB"]))
    return to_uint8(values.transpose(2, 1, 0).astype(np.float32))


def _boxes(file: ImageFile) -> list[list[Box]]:
    def boxes(opened: Any) -> list[list[Box]]:
        info = opened["info"]
        found = []
        for reference in np.asarray(info["boundingboxes"]).reshape(-1):
            rows = np.asarray(info[reference]).T.astype(int).tolist()
            found.append([(a - 1, b - 1, c - a + 1, d - b + 1) for a, b, c, d in rows])
        return found

    return _read(file, boxes)  # type: ignore[no-any-return]


def _read(file: ImageFile, take: Any) -> Any:
    import h5py

    try:
        with h5py.File(io.BytesIO(file.content()), "r") as opened:
            return take(opened)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file.name}: not laid out as DND's files are ({error})") from None
