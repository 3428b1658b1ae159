"""SPA-Data: real rain, its truth made of video frames (Wang et al., CVPR 2019).

The authors' layout: ``real_world/000/000-f/000-f_x_y.png`` with truth at the same path below
``real_world_gt`` or, where ``real_world.txt`` is there, at the path that its line names; test
images ``real_test_1000/{rain/NNN.png,gt/NNNgt.png}``. Kaggle's layout:
``{train,test}/{rain,norain}/``.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.config.sources import FetchedSource, Split
from pipeline.images.files import ENDINGS
from pipeline.runtime.errors import UserError
from pipeline.sources.pairs import PAIR, Found, named, paired
from pipeline.sources.photographs import ImageFile, Photograph, files_in

LIST = "real_world.txt"
_ROOT = re.compile(r"(?:.*/)?(?P<path>real_world(?:_gt)?/.+)", re.IGNORECASE)
_ROLES = {"rain": "degraded", "norain": "clean", "gt": "clean"}
_LAYOUTS: tuple[tuple[Split, re.Pattern[str]], ...] = (
    # greedy: the innermost such folder, as they may be unpacked into one another
    ("real", re.compile(r"^(?:.*/)?real_world(?P<role>_gt)?/(?P<key>.+)\.png$", re.IGNORECASE)),
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
    listing = next((file for file in files if PurePosixPath(file.name).name == LIST), None)
    images = [file for file in files if file.name.lower().endswith(ENDINGS)]
    if listing is None:
        return named(images, _found, PAIR)
    others = (file for file in images if _inner(file.name) is None)
    return paired([*_listed(listing, images), *filter(None, map(_found, others))], PAIR)


def _found(file: ImageFile) -> Found | None:
    for split, layout in _LAYOUTS:
        match = layout.search(file.name)
        if match is None:
            continue
        role = _ROLES[(match["role"] or "rain").removeprefix("_").lower()]
        key = re.sub(r"gt$|(?:^|(?<=/))(?:no)?rain-?", "", match["key"])
        if split == "real":
            return _train(file, role, key)
        return Found(file, role, f"test/{key}", f"test {key}", split, "SPA test")
    return None


def _train(file: ImageFile, role: str, key: str) -> Found:
    return Found(file, role, key, re.split(r"[/_]", key)[0], "real", "SPA train")


def _listed(listing: ImageFile, images: list[ImageFile]) -> Iterator[Found]:
    """Yield both images of each line; lines may share a truth, and name it as they like."""
    by_name = {inner: file for file in images if (inner := _inner(file.name))}
    for number, line in enumerate(listing.content().decode(errors="replace").splitlines(), 1):
        names = line.split()
        if not names:
            continue
        paths = [_inner(name) or "" for name in names]
        if len(names) != 2 or any(path not in by_name for path in paths):
            raise UserError(
                f"{listing.name}, line {number}: expected '<rain> <gt>', two files of the"
                f" archive, found {line!r}"
            )
        rain, truth = paths
        key = rain.partition("/")[2].rpartition(".")[0]
        yield _train(by_name[rain], "degraded", key)
        yield _train(by_name[truth], "clean", key)


def _inner(name: str) -> str | None:
    """Return a path from its innermost folder real_world or real_world_gt on."""
    match = _ROOT.search(name)
    return match["path"] if match else None
