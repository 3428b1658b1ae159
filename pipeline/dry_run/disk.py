"""How much disk do the published data sets of a configuration take?

Reckoned from pipeline/conf/sources: archives by their published sizes, or rough ones; packed images
by their number, their size, how they are cut, and the limits that are set. Nothing is fetched.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.compose import compose
from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.config.sources import SPLITS, Crop, FetchedSource, Split, TypicalImages
from pipeline.config.tasks import Task
from pipeline.sources.pairs import boxes

GB = 1e9


@dataclass(frozen=True)
class Disk:
    """What a source takes in bytes: its archives, and its packed images of each split.

    ``unknown`` names what has no known size, and is in neither.
    """

    archives: float
    packed: dict[Split, float]
    unknown: tuple[str, ...]


def disk_of(source: FetchedSource) -> Disk:
    """Return what a published data set takes."""
    sizes = {archive.file: archive.about_bytes for archive in source.archives.values()}
    unknown = [file for file, size in sizes.items() if size is None]
    if source.typical_images is None:
        unknown.append("packed images")
    packed = {split: packed_bytes(source, split) for split in SPLITS}
    return Disk(sum(size or 0 for size in sizes.values()), packed, tuple(unknown))


def packed_bytes(source: FetchedSource, split: Split) -> float:
    """Return what the packed images of a split take: 3 bytes a pixel, overlaps included.

    With the truth of real photographs, if an upper bound asks for it; limits do not count that.
    """
    groups = (source.typical_images or {}).get(split, ())
    crop: Crop | None = getattr(source.crops, split)
    every = sum(_group_bytes(group, crop) for group in groups)
    if split == "test" or not groups:
        return every
    images = sum(group.images for group in groups)
    if source.max_images is not None:
        every *= min(1, source.max_images / images)
    if source.max_gib is not None:
        every = min(every, source.max_gib * 2**30)
    return 2 * every if split == "real" and source.truth_for is not None else every


def _group_bytes(group: TypicalImages, crop: Crop | None) -> float:
    size = (group.height, group.width)
    area = sum(height * width for _, _, height, width in boxes(size, crop) or [(0, 0, *size)])
    return group.images * area * 3 * (2 if group.pairs else 1)


def disks(params: Params) -> dict[str, Disk]:
    """Return what each published data set of a configuration takes."""
    return {
        name: disk_of(source)
        for name, source in params.sources.items()
        if isinstance(source, FetchedSource)
    }


def drawn_bytes(task: Task, params: Params, found: dict[str, Disk]) -> float:
    """Return what the degraded pairs take that a task makes of clean images, and stores."""
    source = params.sources[task.sources.synthetic]
    if not isinstance(source, FetchedSource) or task.synthetic.draw == "anew":
        return 0
    if any(group.pairs for group in (source.typical_images or {}).get("synthetic", ())):
        return 0
    return 2 * task.synthetic.copies * found[task.sources.synthetic].packed["synthetic"]


def task_bytes(task: Task, params: Params, found: dict[str, Disk]) -> float:
    """Return what the images of a task take that are those of its sources, unchanged."""
    sources = task.sources
    used: set[tuple[str, Split]] = {
        (sources.synthetic, "synthetic"),
        (sources.unpaired, "synthetic"),
        (sources.real, "real"),
        (sources.test, "test"),
        *((name, "test") for name in sources.unseen),
    }
    if drawn_bytes(task, params, found):
        used.remove((sources.synthetic, "synthetic"))
    return sum(found[name].packed[split] for name, split in used if name in found)


def needed_bytes(params: Params) -> tuple[float, float]:
    """Return what published data sets take where DVC links to its cache, and where it copies."""
    found = disks(params)
    stored = sum(disk.archives + sum(disk.packed.values()) for disk in found.values())
    stored += sum(drawn_bytes(task, params, found) for task in params.tasks.values())
    return stored, 2 * stored + sum(task_bytes(t, params, found) for t in params.tasks.values())


def summary(params: Params) -> list[str]:
    """Return lines about the disk of a configuration; none without a published data set."""
    found = disks(params)
    if not found:
        return []
    archives = sum(disk.archives for disk in found.values())
    packed = sum(sum(disk.packed.values()) for disk in found.values())
    drawn = sum(drawn_bytes(task, params, found) for task in params.tasks.values())
    linked, copied = needed_bytes(params)
    stored = f", drawn on them and stored {drawn / GB:.0f} GB" if drawn else ""
    lines = [
        f"Disk: archives {archives / GB:.0f} GB, packed {packed / GB:.0f} GB{stored}; in all"
        f" {linked / GB:.0f} GB where DVC links to its cache, {copied / GB:.0f} GB where it copies."
    ]
    unknown = [f"{name} ({', '.join(d.unknown)})" for name, d in found.items() if d.unknown]
    if unknown:
        lines.append(f"Of unknown size, and not in these sums: {'; '.join(unknown)}.")
    return lines


def show(overrides: list[str]) -> None:
    """Print what each published data set of a configuration takes, and all of them.

    Raises:
        UserError: the configuration is wrong.
    """
    from rich.console import Console
    from rich.table import Table

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "params.yaml"
        compose(overrides, path)
        params = read_params(path)
    table = Table("source", "archives, GB", *(f"{split}, GB" for split in SPLITS), "packed, GB")
    for source, disk in disks(params).items():
        packed = [disk.packed[split] / GB for split in SPLITS]
        cells = [f"{size:.1f}" for size in (disk.archives / GB, *packed, sum(packed))]
        table.add_row(source, *cells)
    console = Console(soft_wrap=True)
    if table.row_count:
        console.print(table)
    for line in summary(params) or ["No published data set among the sources: nothing to fetch."]:
        console.print(line)
