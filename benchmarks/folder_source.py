"""The source ``folder`` on thousands of small files and on one huge one: time and memory.

    python -m benchmarks.folder_source [--files 20000] [--megapixels 100] [--json FILE]

Both stages are measured in a process of their own: ``download`` (every image is decoded once, to
find damaged ones, and all are copied into one archive) and ``prepare`` (packing). *Reading* is the
plain way: one file after the other is decoded and its pixels are dropped.
"""

import argparse
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.own_process import Cost, cost_of
from benchmarks.packing import photograph
from pipeline.config.sources import Crops, FolderSource
from pipeline.datasets.prepare import prepare
from pipeline.sources import folder as folder_source

SMALL = (48, 64)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folder_source")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--json", type=Path, help="where to write every number")
    arguments = parser.parse_args()
    costs = {}
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place) / "small", Path(place) / "large"
        write_small(small / "clean", arguments.files)
        write_large(large / "clean", arguments.megapixels)
        costs[f"{arguments.files} files of {SMALL[1]}x{SMALL[0]}"] = measure(small)
        costs[f"one file of {arguments.megapixels:.0f} megapixels"] = measure(large)
    table = Table("", "stage", "seconds", "peak MiB", "of it libraries")
    for name, stages in costs.items():
        for stage, cost in stages.items():
            numbers = (f"{cost.seconds:.1f}", f"{cost.peak_mib:.0f}", f"{cost.before_mib:.0f}")
            table.add_row(name, stage, *numbers)
    Console(width=100).print(table)
    if arguments.json:
        values = {n: {s: vars(c) for s, c in stages.items()} for n, stages in costs.items()}
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


def measure(folder: Path) -> dict[str, Cost]:
    """Return what reading, downloading and preparing a folder cost."""
    return {
        "reading": cost_of(read, folder),
        "download": cost_of(download, folder),
        "prepare": cost_of(pack, folder),
    }


def read(folder: Path) -> None:
    """Decode every file."""
    for path in sorted((folder / "clean").rglob("*.png")):
        with Image.open(path) as image:
            np.asarray(image)


def download(folder: Path) -> None:
    """Check and copy, as the download stage does."""
    folder_source.download(settings(folder), folder / "raw")


def pack(folder: Path) -> None:
    """Pack, as the prepare stage does."""
    prepare(settings(folder), folder / "raw", folder / "prepared")


def settings(folder: Path) -> FolderSource:
    """Return a folder of clean images."""
    whole = Crops(None, None, None)
    return FolderSource(
        "folder", str(folder), "own", "clean", None, None, {}, None, False, "{}", "{}", whole
    )


def write_small(folder: Path, count: int) -> None:
    """Write small images in nested folders."""
    image = Image.open(io.BytesIO(photograph(0, *SMALL)))
    for number in range(count):
        place = folder / f"{number // 500:03d}"
        place.mkdir(parents=True, exist_ok=True)
        image.putpixel((0, 0), (number % 256, number // 256 % 256, 0))
        image.save(place / f"{number % 500:03d}.png", compress_level=1)


def write_large(folder: Path, megapixels: float) -> None:
    """Write one photograph of four to three."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    folder.mkdir(parents=True)
    (folder / "large.png").write_bytes(photograph(0, width * 3 // 4, width))


if __name__ == "__main__":
    main()
