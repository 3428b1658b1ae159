"""Packing an archive of large photographs: megabytes a second and memory, against plain copying.

    python -m benchmarks.packing [--images 8 32] [--height 3000] [--width 4000]
                                 [--tiny 3000 12000] [--json FILE]

A zip of PNG files is cut into squares of 512 every 384 and packed, as SIDD is. The photographs are
those of scikit-image, enlarged and noisy, so that they compress as photographs do. *Copying* writes
the same number of bytes from one file to another and waits until they are on the disk, as packing
does. Memory must not grow with the number of images.

Beside these, pairs of tiny images in the layout of SPA-Data, which has 638,492: what the list of
them takes shows as memory a pair.
"""

import argparse
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from benchmarks.own_process import cost_of
from pipeline.config.sources import Crop, Crops, FetchedSource
from pipeline.datasets.prepare import prepare
from pipeline.randomness import numpy_generator
from pipeline.sources.fetch import FETCHED

CROP = Crop(512, 384, 0)
DISTINCT = 3
"""Encoded photographs; more images are the same bytes under other names."""


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing")
    parser.add_argument("--images", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--tiny", type=int, nargs=2, default=[3_000, 12_000])
    parser.add_argument("--json", type=Path, help="where to write every number")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(Path(folder), count, arguments.height, arguments.width)
            for count in arguments.images
        ]
        tiny = [measure_tiny(Path(folder), count) for count in arguments.tiny]
    table = Table("images", "decoded MB", "packed MB", "decoded MB/s", "packed MB/s", "copied MB/s",
                  "packing / copying", "peak MiB", "of it libraries")  # fmt: skip
    for row in rows:
        table.add_row(*(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in row.values()))
    few, many = tiny
    small = Table("pairs of 16x16", "images/s", "peak MiB", "KiB a pair beyond the first count")
    grown = (many["peak_mib"] - few["peak_mib"]) * 1024 / (many["pairs"] - few["pairs"])
    for row, more in ((few, ""), (many, f"{grown:.2f}")):
        small.add_row(*(f"{value:.0f}" for value in row.values()), more)
    console = Console(width=140)
    console.print(table)
    console.print(small)
    if arguments.json:
        arguments.json.write_text(json.dumps({"large": rows, "tiny": tiny}, indent=1) + "\n")


def measure(folder: Path, images: int, height: int, width: int) -> dict[str, float]:
    """Return sizes, rates and memory of packing an archive of that many photographs."""
    raw, prepared = folder / "raw" / "set", folder / "prepared" / "set"
    shutil.rmtree(folder, ignore_errors=True)
    raw.mkdir(parents=True)
    write_archive(raw / "photographs.zip", images, height, width)
    cost = cost_of(pack, raw, prepared, "real_internet", "Real-Internet")
    store = prepared / "test.h5"
    decoded_mb, packed_mb = images * height * width * 3 / 1e6, store.stat().st_size / 1e6
    copying = copying_seconds(store, folder / "copy.h5")
    return {
        "images": images,
        "decoded_mb": decoded_mb,
        "packed_mb": packed_mb,
        "decoded_mb_per_s": decoded_mb / cost.seconds,
        "packed_mb_per_s": packed_mb / cost.seconds,
        "copied_mb_per_s": packed_mb / copying,
        "packing_per_copying": cost.seconds / copying,
        "peak_mib": cost.peak_mib,
        "before_mib": cost.before_mib,
    }


def measure_tiny(folder: Path, pairs: int) -> dict[str, float]:
    """Return rate and memory of packing that many pairs of tiny images."""
    raw, prepared = folder / "raw" / "set", folder / "prepared" / "set"
    shutil.rmtree(folder, ignore_errors=True)
    raw.mkdir(parents=True)
    encoded = photograph(0, 16, 16)
    with zipfile.ZipFile(raw / "real_world.zip", "w") as archive:
        for number in range(pairs):
            for truth in ("", "_gt"):
                name = f"{number // 5000:03d}/{number // 50:05d}-1/{number:06d}_256_256.png"
                archive.writestr(f"real_world{truth}/{name}", encoded)
    cost = cost_of(pack, raw, prepared, "spa", "SPA train")
    return {"pairs": pairs, "images_per_s": 2 * pairs / cost.seconds, "peak_mib": cost.peak_mib}


def pack(raw: Path, prepared: Path, kind: str, data_set: str) -> None:
    """Pack a folder of archives as the prepare stage does."""
    prepare(settings(kind, data_set), raw, prepared)


def settings(kind: str, data_set: str) -> FetchedSource:
    """Return a source that takes every image of a data set from any archive."""
    crops = Crops(None, None, CROP)
    return FetchedSource(kind, FETCHED, "", "", {}, (data_set,), None, None, None,  # type: ignore[arg-type]
                         None, None, None, False, None, crops)  # fmt: skip


def write_archive(path: Path, images: int, height: int, width: int) -> None:
    """Write a zip of photographs."""
    encoded = [photograph(number, height, width) for number in range(min(DISTINCT, images))]
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(images):
            archive.writestr(f"{number:06d}.png", encoded[number % DISTINCT])


def photograph(number: int, height: int, width: int) -> bytes:
    """Return a photograph of that size as PNG, with the noise of a camera."""
    sources: list[Any] = [data.coffee, data.astronaut, data.chelsea]
    enlarged = Image.fromarray(sources[number % 3]()).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = numpy_generator("packing", number).integers(-4, 5, (height, width, 3), dtype=np.int16)
    noisy = np.clip(np.asarray(enlarged) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "PNG", compress_level=1)
    return file.getvalue()


def copying_seconds(source: Path, target: Path) -> float:
    """Return how long it takes to copy a file to the disk."""
    begun = time.perf_counter()
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begun
    target.unlink()
    return seconds


if __name__ == "__main__":
    main()
