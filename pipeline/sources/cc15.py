"""CC15: real noise of three cameras, 15 crops of 512x512 (Nam et al., CVPR 2016). For testing only.

Layout: ``*_{real,mean}.png``, beside results (``*_ours.png``) that are no part of it.
"""

import re
from pathlib import Path

from pipeline.config.sources import FetchedSource
from pipeline.sources.pairs import PAIR, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, images_in

_PAIR = re.compile(r"(?:^|/)(?P<key>[^/]+)_(?P<role>real|mean)\.png$", re.IGNORECASE)


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
    return Found(file, role, match["key"], match["key"], "test", "CC15")
