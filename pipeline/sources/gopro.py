"""GoPro: blur made by averaging frames of a fast camera (Nah et al., CVPR 2017).

The authors' layout: ``{train,test}/<sequence>/{blur,blur_gamma,sharp}/NNNNNN.png``, of which the
literature uses ``blur``. Restormer's: ``train/[GoPro/]{input,target}/<sequence>-NNNNNN.png``.
"""

import re
from pathlib import Path

from pipeline.config.sources import FetchedSource, Split
from pipeline.sources.pairs import PAIR, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, images_in

_LAYOUTS = (
    re.compile(
        r"(?:^|/)(?P<split>train|test)/(?P<scene>[^/]+)/(?P<role>blur|sharp)/(?P<frame>\d+)\.\w+$"
    ),
    re.compile(
        r"(?:^|/)(?P<split>train|test)/(?:GoPro/)?(?P<role>input|target)/"
        r"(?P<scene>[^/]+)-(?P<frame>\d+)\.\w+$",
        re.IGNORECASE,
    ),
)
_SPLITS: dict[str, Split] = {"train": "synthetic", "test": "test"}


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return the synthetic pairs, and test pairs where the archives hold them.

    Raises:
        UserError: a partner is missing.
    """
    return named(images_in(folder), _found, PAIR)


def _found(file: ImageFile) -> Found | None:
    for layout in _LAYOUTS:
        match = layout.search(file.name)
        if match is not None:
            role = "degraded" if match["role"].lower() in ("blur", "input") else "clean"
            split = _SPLITS[match["split"].lower()]
            key = f"{match['scene']}/{match['frame']}"
            return Found(file, role, key, match["scene"], split, f"GoPro {match['split'].lower()}")
    return None
