"""Partners found by name, and what must hold of the photographs of a published data set."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config.sources import SPLITS, Crop, FetchedSource, Split
from pipeline.images.tiles import starts
from pipeline.runtime.errors import UserError
from pipeline.sources import source_module
from pipeline.sources.archives.reading import CHECKSUMS
from pipeline.sources.photographs import ImageFile, Photograph, Picture

PAIR = ("degraded", "clean")
DEGRADED = ("degraded",)
CLEAN = ("clean",)
"""What every image of a data set must have."""

Box = tuple[int, int, int, int]
"""First row, first column, height, width."""


@dataclass(frozen=True, slots=True)
class Found:
    """One image of a data set: what it is, as its name says."""

    file: ImageFile
    role: str
    id: str
    scene: str
    split: Split
    data_set: str


def paired(found: Iterable[Found], required: tuple[str, ...]) -> list[Photograph]:
    """Return degraded and clean images of one id as photographs, sorted by id.

    The clean partner of an unlabeled real photograph is its ``truth`` and not ``clean``, so that no
    method can see it by accident. Which roles are required is told, not found: else a whole folder
    could be missing unseen.

    Raises:
        UserError: two images are the same photograph in the same role, or a required role is
            missing.
    """
    groups: dict[tuple[Split, str], dict[str, dict[str, Found]]] = {}
    for item in found:
        roles = groups.setdefault((item.split, item.data_set), {}).setdefault(item.id, {})
        if item.role in roles:
            raise UserError(
                f"{item.data_set}: {roles[item.role].file.name!r} and {item.file.name!r} are both"
                f" {item.role} images of {item.id!r}; keep one of the two"
            )
        roles[item.role] = item
    listed = []
    for (split, data_set), group in groups.items():
        for name, roles in group.items():
            for lacking in (role for role in required if role not in roles):
                raise UserError(
                    f"{data_set}: {name!r} has no {lacking} partner; its archive is incomplete:"
                    " delete it and fetch it anew"
                )
            scene = next(iter(roles.values())).scene
            files = {role: item.file for role, item in roles.items()}
            degraded, clean = files.get("degraded"), files.get("clean")
            seen = (clean, None) if split != "real" else (None, clean)
            listed.append(Photograph(name, split, scene, data_set, degraded, *seen))
    return sorted(listed, key=lambda photograph: (photograph.split, photograph.id))


def chosen(settings: FetchedSource, folder: Path, listed: list[Photograph]) -> list[Photograph]:
    """Return the photographs of the data sets that the settings ask for, all of them checked.

    Real ones keep their truth only where the settings say for whom. ``folder``, named after the
    source, is where their archives lie.

    Raises:
        UserError: there are more or fewer than published, a scene is in two splits, or a truth that
            is asked for is missing.
    """
    name = folder.name
    kept = [photograph for photograph in listed if photograph.data_set in settings.data_sets]
    if not kept:
        present = sorted({photograph.data_set for photograph in listed})
        archives = sorted(path.name for path in folder.iterdir() if path.name != CHECKSUMS)
        layout = (source_module(settings.kind).__doc__ or "").partition("\n\n")[2]
        known = " ".join(layout.replace("``", "").split()).removeprefix("Layout: ")
        raise UserError(
            f"{name}: {folder} ({', '.join(archives) or 'empty'}) holds no image of"
            f" {', '.join(settings.data_sets)}"
            f" (found: {', '.join(present) or 'nothing of a known layout'}). Expected: {known}"
        )
    _require_split_scenes(name, kept)
    for split, expected in (settings.expected_images or {}).items():
        count = sum(photograph.split == split for photograph in kept)
        if count != expected:
            raise UserError(
                f"{name}: expected {expected} images of the split {split!r}, found {count}; an"
                " archive is incomplete or another one. If this is what you want, set"
                f" sources.{name}.expected_images=null"
            )
    if settings.truth_for is None:
        return [replace(photograph, truth=None) for photograph in kept]
    for photograph in kept:
        if photograph.split == "real" and photograph.truth is None:
            raise UserError(
                f"{name}: {photograph.id!r} has no clean partner, which {settings.truth_for} needs;"
                f" set sources.{name}.truth_for=null and leave that method out"
            )
    return kept


def limited(settings: FetchedSource, listed: list[Photograph]) -> list[Photograph]:
    """Return as many photographs of each training split as the limits allow, from all its scenes.

    They are taken in the order of a hash of their names, so a larger limit only adds to them.
    """
    by_split = ([p for p in listed if p.split == split] for split in SPLITS)
    return [photograph for group in by_split for photograph in _within_limits(settings, group)]


def _within_limits(settings: FetchedSource, group: list[Photograph]) -> list[Photograph]:
    if not group or group[0].split == "test":
        return group
    names = sorted((photograph.id for photograph in group), key=_mixed)[: settings.max_images]
    if settings.max_gib is not None:
        crop: Crop | None = getattr(settings.crops, group[0].split)
        by_name = {photograph.id: photograph for photograph in group}
        left = settings.max_gib * 2**30
        for count, name in enumerate(names):
            left -= _packed_bytes(by_name[name], crop)
            if left < 0:
                names = names[:count]
                break
    taken = set(names)
    return [photograph for photograph in group if photograph.id in taken]


def _mixed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def boxes(size: tuple[int, int], crop: Crop | None) -> list[Box] | None:
    """Return the parts of an image of (height, width) that are packed; None if it stays whole."""
    height, width = size
    if crop is None or min(size) <= crop.only_above:
        return None
    return [
        (top, left, min(crop.side, height), min(crop.side, width))
        for top in starts(height, crop.side, crop.step)
        for left in starts(width, crop.side, crop.step)
    ]


def _packed_bytes(photograph: Photograph, crop: Crop | None) -> int:
    pictures: list[Picture] = [p for p in (photograph.degraded, photograph.clean) if p]
    size = pictures[0].size()
    areas = [height * width for _, _, height, width in boxes(size, crop) or [(0, 0, *size)]]
    return sum(areas) * 3 * len(pictures)


def _require_split_scenes(name: str, listed: list[Photograph]) -> None:
    splits: dict[str, Split] = {}
    for photograph in listed:
        other = splits.setdefault(photograph.scene, photograph.split)
        if other != photograph.split:
            raise UserError(
                f"{name}: scene {photograph.scene!r} is in the splits {other!r} and"
                f" {photograph.split!r}; what is tested must not be seen in training"
            )


def named(
    files: Iterable[ImageFile],
    find: Callable[[ImageFile], Found | None],
    required: tuple[str, ...],
) -> list[Photograph]:
    """Return ``paired`` of what ``find`` knows by name; it gives None for other files."""
    return paired((item for file in files if (item := find(file)) is not None), required)
