"""PolyU: real noise of 40 scenes, 100 crops of 512x512 (Xu et al., 2018). For testing only.

Layout: ``CroppedImages/*_{real,mean}.JPG``; the mean of many shots is the truth.
"""

import re
from pathlib import Path

from pipeline.config.sources import FetchedSource
from pipeline.sources.pairs import PAIR, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, images_in

_PAIR = re.compile(r"(?:^|/)CroppedImages/(?P<key>[^/]+)_(?P<role>real|mean)\.jpg$", re.IGNORECASE)


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return the test pairs.

    Raises:
        UserError: a partner is missing.
    """
    return named(images_in(folder), _found, PAIR)


def _found(file: ImageFile) -> Found | None:
    match = _PAIR.search(file.name)
    if match is None:
        return None
    role = "degraded" if match["role"].lower() == "real" else "clean"
    scene = re.sub(r"_?\d+$", "", match["key"])
    return Found(file, role, match["key"], scene, "test", "PolyU")
