"""SPA-Data: real rain, its truth made of video frames (Wang et al., CVPR 2019).

The authors' layout: ``real_world/000/000-f/000-f_x_y.png`` with truth at the same path below
``real_world_gt`` or, where ``real_world.txt`` is there, at the path that its line names; test
images ``real_test_1000/{rain/NNN.png,gt/NNNgt.png}``. Kaggle's layout:
``{train,test}/{rain,norain}/``.
"""

import re
from pathlib import Path

from pipeline.config.data import FetchedSource, Split
from pipeline.errors import UserError
from pipeline.image_files import ENDINGS
from pipeline.sources.pairs import PAIR, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, files_in

LIST = "real_world.txt"
_ROLES = {"rain": "degraded", "norain": "clean", "gt": "clean"}
_LAYOUTS: tuple[tuple[Split, re.Pattern[str]], ...] = (
    ("real", re.compile(r"(?:^|/)real_world(?P<role>_gt)?/(?P<key>.+)\.png$", re.IGNORECASE)),
    ("test", re.compile(r"(?:^|/)real_test_1000/(?P<role>rain|gt)/(?P<key>.+)\.\w+$")),
    ("real", re.compile(r"(?:^|/)train/(?P<role>rain|norain)/(?P<key>.+)\.\w+$")),
    ("test", re.compile(r"(?:^|/)test/(?P<role>rain|norain)/(?P<key>.+)\.\w+$")),
)


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return rainy crops without truth and the test pairs.

    Raises:
        UserError: a partner is missing, or the list names a file that is not there.
    """
    files = files_in(folder)
    for file in files:
        if Path(file.name).name == LIST:
            files = _listed(file, files)
            break
    images = (file for file in files if file.name.lower().endswith(ENDINGS))
    return named(images, _found, PAIR)


def _found(file: ImageFile) -> Found | None:
    for split, layout in _LAYOUTS:
        match = layout.search(file.name)
        if match is None:
            continue
        role = _ROLES[(match["role"] or "rain").removeprefix("_").lower()]
        key = re.sub(r"gt$|(?:^|(?<=/))(?:no)?rain-?", "", match["key"])
        scene = re.split(r"[/_]", key)[0]
        if split == "real":
            return Found(file, role, key, scene, split, "SPA train")
        return Found(file, role, f"test/{key}", f"test {key}", split, "SPA test")
    return None


def _listed(listing: ImageFile, files: list[ImageFile]) -> list[ImageFile]:
    """Leave out training crops that the list does not name; require those that it names."""
    by_name = {_tail(file.name): file for file in files if "real_world" in file.name}
    kept = [file for file in files if "real_world" not in file.name]
    for number, line in enumerate(listing.content().decode(errors="replace").splitlines(), 1):
        names = line.split()
        if not names:
            continue
        for name in names:
            file = by_name.get(_tail(name))
            if len(names) != 2 or file is None:
                raise UserError(
                    f"{listing.name}, line {number}: expected '<rain> <gt>', two files of the"
                    f" archive, found {line!r}"
                )
            kept.append(file)
    return kept


def _tail(name: str) -> str:
    return name[name.index("real_world") :] if "real_world" in name else name
