"""DFWB: clean photographs of DIV2K, Flickr2K, Waterloo Exploration and BSD400.

As four archives or one. A folder or archive in an image's path tells its data set (``DIV2K``,
``Flickr2K``, ``Waterloo``, ``BSD``); without one, its file name does: ``0001.png`` is of DIV2K,
``000001.png`` of Flickr2K, ``00001.bmp`` of Waterloo Exploration, anything else of BSD400
(whose numbers have no leading zero). Of
BSDS500's own archive the folders ``train`` and ``test`` are BSD400; ``val`` holds CBSD68.
"""

import re
from pathlib import Path, PurePosixPath

from pipeline.config.sources import FetchedSource
from pipeline.sources.pairs import CLEAN, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, images_in

_BY_PATH = {
    "DIV2K": re.compile(r"div2k", re.IGNORECASE),
    "Flickr2K": re.compile(r"flickr2k", re.IGNORECASE),
    "Waterloo Exploration": re.compile(r"waterloo|wed(?![a-z])|exploration", re.IGNORECASE),
    "BSD400": re.compile(r"bsd|bsr", re.IGNORECASE),
}
_BY_NAME = {
    "DIV2K": re.compile(r"0\d{3}\.png"),
    "Flickr2K": re.compile(r"00\d{4}\.png"),
    "Waterloo Exploration": re.compile(r"\d{5}\.bmp"),
    "BSD400": re.compile(r".+"),
}
_OTHER = re.compile(r"_LR|x[234]\.png$|valid|/bench/|/val/|/groundTruth/")


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return the clean photographs.

    Raises:
        UserError: two photographs of a data set share a name.
    """
    return named(images_in(folder), _found, CLEAN)


def _found(file: ImageFile) -> Found | None:
    path, name = PurePosixPath(file.name), PurePosixPath(file.name).name
    if _OTHER.search(f"/{file.name}"):
        return None
    folders = [*reversed(path.parts[:-1]), file.archive.name]
    for part in folders:
        for data_set, pattern in _BY_PATH.items():
            # an archive of all four may be called DFWB or after one of them
            if pattern.search(part):
                return _clean(file, data_set, path.stem)
    data_set = next(label for label, pattern in _BY_NAME.items() if pattern.fullmatch(name))
    return _clean(file, data_set, path.stem)


def _clean(file: ImageFile, data_set: str, stem: str) -> Found:
    key = f"{data_set.replace(' ', '_')}/{stem}"
    return Found(file, "clean", key, key, "synthetic", data_set)
