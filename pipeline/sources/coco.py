"""COCO: clean photographs for the unpaired extension (Lin et al., ECCV 2014).

Layout: ``{train,val}2017/NNNNNNNNNNNN.jpg``.
"""

import re
from pathlib import Path

from pipeline.config.sources import FetchedSource
from pipeline.sources.pairs import CLEAN, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, images_in

_IMAGE = re.compile(r"(?P<part>train|val)2017/(?P<key>\d{12})\.jpg$", re.IGNORECASE)


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return the clean photographs."""
    return named(images_in(folder), _found, CLEAN)


def _found(file: ImageFile) -> Found | None:
    match = _IMAGE.search(file.name)
    if match is None:
        return None
    data_set = f"COCO {match['part'].lower()}2017"
    return Found(file, "clean", match["key"], match["key"], "synthetic", data_set)
