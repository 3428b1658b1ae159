"""Rain13K: 13,711 synthetic rainy pairs gathered from several sets (Jiang et al., CVPR 2020).

Layout: ``train/Rain13K/{input,target}/N.{png,jpg}``.
"""

import re
from pathlib import Path

from pipeline.config.sources import FetchedSource
from pipeline.sources.pairs import PAIR, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, images_in

_PAIR = re.compile(r"(?:^|/)Rain13K/(?P<role>input|target)/(?P<key>[^/]+)\.\w+$", re.IGNORECASE)


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return the synthetic pairs.

    Raises:
        UserError: a partner is missing.
    """
    return named(images_in(folder), _found, PAIR)


def _found(file: ImageFile) -> Found | None:
    match = _PAIR.search(file.name)
    if match is None:
        return None
    role = "degraded" if match["role"].lower() == "input" else "clean"
    return Found(file, role, match["key"], match["key"], "synthetic", "Rain13K")
