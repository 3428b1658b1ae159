"""RealBlur-J and RealBlur-R: camera shake taken with two cameras at once (Rim et al., ECCV 2020).

The authors' layout: ``RealBlur-{J,R}_.../sceneNNN/{blur/blur_k.png,gt/gt_k.png}`` with lists
``RealBlur_{J,R}_{train,test}_list.txt``, of which each line names the truth first. Restormer's flat
layout holds the test images only: ``RealBlur_{J,R}/{input,target}/sceneNNN-k.png``.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.config.sources import FetchedSource, Split
from pipeline.images.files import ENDINGS
from pipeline.runtime.errors import UserError
from pipeline.sources.pairs import PAIR, Found, paired
from pipeline.sources.photographs import ImageFile, Photograph, files_in

_LIST = re.compile(r"RealBlur_(?P<set>[JR])_(?P<split>train|test)_list\.txt$")
_FLAT = re.compile(
    r"RealBlur_(?P<set>[JR])/(?P<role>input|target)/(?P<scene>scene\d+)-(?P<k>\d+)\.\w+$"
)
_SPLITS: dict[str, Split] = {"train": "real", "test": "test"}


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return blurred photographs without truth and the test pairs of both data sets.

    Raises:
        UserError: a list is not the published one or names a file that is not there, or a partner
            is missing.
    """
    files = files_in(folder)
    return paired([*_from_lists(files, settings.lists_md5 or {}), *_flat(files)], PAIR)


def _from_lists(files: list[ImageFile], lists_md5: dict[str, str]) -> Iterator[Found]:
    by_name = {file.name.removeprefix("./"): file for file in files}
    for listing in files:
        match = _LIST.search(listing.name)
        if match is None:
            continue
        root = PurePosixPath(listing.name.removeprefix("./")).parent
        split = _SPLITS[match["split"]]
        content = listing.content()
        _require_published(listing, content, lists_md5)
        for number, line in enumerate(content.decode().splitlines(), 1):
            names = line.split()
            if not names:
                continue
            pair = [by_name.get((root / name).as_posix()) for name in names]
            if len(pair) != 2 or None in pair:
                raise UserError(
                    f"{listing.name}, line {number}: expected '<truth> <blurred>', two files of the"
                    f" archive, found {line!r}"
                )
            scene = PurePosixPath(names[0]).parts[-3]
            key = f"{scene}-{PurePosixPath(names[0]).stem.removeprefix('gt_')}"
            for role, file in zip(("clean", "degraded"), pair, strict=True):
                yield _found(file, role, match["set"], scene, key, split)  # type: ignore[arg-type]


def _require_published(listing: ImageFile, content: bytes, lists_md5: dict[str, str]) -> None:
    """Refuse a list that divides the scenes in another way than published scores had them."""
    expected = lists_md5.get(PurePosixPath(listing.name).name)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if expected not in (None, found):
        raise UserError(
            f"{listing.name}: expected the published list, md5 {expected}, found md5 {found}; fetch"
            " the archive anew. If this is what you want, set lists_md5 of the source to null"
        )


def _flat(files: list[ImageFile]) -> Iterator[Found]:
    for file in files:
        match = _FLAT.search(file.name)
        if match and file.name.lower().endswith(ENDINGS):
            role = "degraded" if match["role"] == "input" else "clean"
            key = f"{match['scene']}-{match['k']}"
            yield _found(file, role, match["set"], match["scene"], key, "test")


def _found(file: ImageFile, role: str, which: str, scene: str, key: str, split: Split) -> Found:
    return Found(file, role, f"{which}/{key}", f"{which}/{scene}", split, f"RealBlur-{which}")
