"""Real-Internet: 147 rainy photographs without truth. For looking at only.

Layout: images in any folders.
"""

from pathlib import Path, PurePosixPath

from pipeline.config.sources import FetchedSource
from pipeline.sources.pairs import DEGRADED, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, images_in


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return the rainy photographs.

    Raises:
        UserError: two photographs share a name.
    """
    return named(images_in(folder), _found, DEGRADED)


def _found(file: ImageFile) -> Found:
    key = PurePosixPath(file.name).with_suffix("").name
    return Found(file, "degraded", key, key, "test", "Real-Internet")
