"""Random crops a second: this project's packed store against PNG files of the same images.

    python -m benchmarks.crop_reading [--images 64] [--crops 512] [--repeats 5] [--json FILE]

Both read the same crops of the same photographs (those of scikit-image, cut at random into
512x512) and end with float32 in [0, 1]. The store is read as ``JointCrops`` does, PNG files are
decoded with Pillow. All files are in the page cache: this measures the processor, not the disk.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from rich.console import Console
from rich.table import Table
from skimage import data

from pipeline.images.pixels import Image, Pixels, as_float
from pipeline.images.store import ImageStore, Record, write_store
from pipeline.randomness import numpy_generator

SIDE, PATCH = 512, 128
PHOTOGRAPHS: tuple[Callable[[], Pixels], ...] = (
    data.astronaut,
    data.coffee,
    data.chelsea,
    data.rocket,
)
"""RGB photographs inside the scikit-image wheel."""

Place = tuple[int, int, int]
"""Image, top, left."""


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crop_reading")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--crops", type=int, default=512, help="of each kind, in a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write every number")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder), arguments.images, arguments.crops, arguments.repeats)
    table = Table(f"{PATCH}x{PATCH} crops of {SIDE}x{SIDE}", "images/s")
    for name, values in rates.items():
        table.add_row(name, f"{statistics.median(values):.0f}")
    ratios = [store / png for store, png in zip(rates["store"], rates["png"], strict=True)]
    Console().print(table)
    print(f"store / png: {statistics.median(ratios):.1f} [{min(ratios):.1f}, {max(ratios):.1f}]")
    if arguments.json:
        arguments.json.write_text(json.dumps({**rates, "ratio": ratios}, indent=1) + "\n")


def measure(folder: Path, images: int, crops: int, repeats: int) -> dict[str, list[float]]:
    """Return crops a second of both readers in every repeat; they take turns in going first."""
    pixels = [photograph(number) for number in range(images)]
    paths = [folder / f"{number}.png" for number in range(images)]
    for path, image in zip(paths, pixels, strict=True):
        PillowImage.fromarray(image).save(path)
    write_store(
        folder / "images.h5", [_record(path.stem, p) for path, p in zip(paths, pixels, strict=True)]
    )
    store = ImageStore(folder / "images.h5")
    readers: dict[str, Callable[[Place], Image]] = {
        "store": lambda place: from_store(store, place),
        "png": lambda place: from_png(paths, place),
    }
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for repeat in range(repeats):
        places = random_places(repeat, images, crops)
        if not all(np.array_equal(readers["store"](p), readers["png"](p)) for p in places[:8]):
            raise AssertionError("both readers must give the same crops")
        for name in sorted(readers, reverse=repeat % 2 == 0):
            begun = time.perf_counter()
            for place in places:
                readers[name](place)
            rates[name].append(crops / (time.perf_counter() - begun))
    return rates


def photograph(number: int) -> Pixels:
    """Return a 512x512 cut of a photograph, upscaled before where it is smaller."""
    generator = numpy_generator("benchmark photograph", number)
    whole = PillowImage.fromarray(PHOTOGRAPHS[number % len(PHOTOGRAPHS)]())
    factor = max(1.0, (SIDE + 64) / min(whole.size))
    whole = whole.resize((round(whole.width * factor), round(whole.height * factor)))
    left = int(generator.integers(whole.width - SIDE + 1))
    top = int(generator.integers(whole.height - SIDE + 1))
    return np.asarray(whole)[top : top + SIDE, left : left + SIDE].copy()


def random_places(seed: int, images: int, crops: int) -> list[Place]:
    """Return which image and where, for every crop of a repeat."""
    generator = numpy_generator("benchmark crops", seed)
    highest = SIDE - PATCH + 1
    drawn = generator.integers((images, highest, highest), size=(crops, 3))
    return [(int(index), int(top), int(left)) for index, top, left in drawn]


def from_store(store: ImageStore, place: Place) -> Image:
    """Return a crop as ``JointCrops`` reads it, (128, 128, 3)."""
    index, top, left = place
    return as_float(store.image("clean", index)[top : top + PATCH, left : left + PATCH])


def from_png(paths: Sequence[Path], place: Place) -> Image:
    """Return the same crop of a decoded PNG file."""
    index, top, left = place
    with PillowImage.open(paths[index]) as file:
        pixels = np.asarray(file.convert("RGB"))
    return as_float(pixels[top : top + PATCH, left : left + PATCH])


def _record(name: str, pixels: Pixels) -> Record:
    return Record(name, name, "benchmark", SIDE, SIDE, clean=lambda: pixels)


if __name__ == "__main__":
    main()
