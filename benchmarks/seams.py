"""Draw what the borders of tiles leave in a restored photograph: the figure of docs/restoring.md.

    python -m benchmarks.seams [--model denoise/noise_space-0] [--out docs/seams.png]

A noisy photograph is restored at once, in tiles side by side and in overlapping blended tiles; the
middle of each is shown, and its difference from the first.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from pipeline.images.pixels import Image as Floats
from pipeline.images.pixels import Pixels, as_float, to_uint8
from pipeline.inference.model import load_network
from pipeline.inference.tiled import restore
from pipeline.report.examples.choice import CROP_PIXELS, Example, Examples, Panel
from pipeline.report.examples.grids import image_grid
from pipeline.runtime.files import replacing
from pipeline.runtime.paths import find_model

SIDE, TILE, OVERLAP = 288, 96, 48
"""Pixels; the overlap is the largest that is allowed, half a tile."""
SIGMA = 30 / 255
AMPLIFIED = 16
COLOURS = 256


def difference(restored: Floats, whole: Floats) -> Floats:
    """Return what two images differ by: 16 times as strong, grey where they are equal."""
    return (0.5 + AMPLIFIED * (restored - whole)).astype(np.float32)


def main(words: list[str]) -> None:
    """Write the figure and print the largest differences in steps of 8 bits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="denoise/noise_space-0")
    parser.add_argument("--out", type=Path, default=Path("docs/seams.png"))
    arguments = parser.parse_args(words)
    network, _ = load_network(find_model(arguments.model))
    photograph: Pixels = data.chelsea()  # type: ignore[no-untyped-call]
    clean = as_float(photograph[:SIDE, 90 : 90 + SIDE])
    noisy = clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape).astype(np.float32)
    whole, hard, blended = (
        restore(network, noisy.clip(0, 1), tile, overlap, "fp32")
        for tile, overlap in ((SIDE, 0), (TILE, 0), (TILE, OVERLAP))
    )
    shown = {
        "untiled": whole,
        "tiles side by side": hard,
        "tiles blended": blended,
        f"side by side, {AMPLIFIED} x off": difference(hard, whole),
        f"blended, {AMPLIFIED} x off": difference(blended, whole),
    }
    middle = slice((SIDE - CROP_PIXELS) // 2, (SIDE + CROP_PIXELS) // 2)
    panels = tuple(Panel(name, to_uint8(image[middle, middle]), None)
                   for name, image in shown.items())  # fmt: skip
    title = f"tiles of {TILE} pixels, overlap {OVERLAP} where blended"
    examples = Examples(title, (Example("chelsea", title, panels),))
    grid = image_grid("denoise", "chelsea", examples, arguments.out.name)
    with replacing(arguments.out) as partial, Image.open(io.BytesIO(grid.png)) as picture:
        # a third of the size, for a file that is kept in git
        picture.convert("RGB").quantize(COLOURS).save(partial, "PNG", optimize=True)
    for name, image in (("side by side", hard), ("blended", blended)):
        print(f"{name}: at most {255 * np.abs(image - whole).max():.2f} of 255 from untiled")


if __name__ == "__main__":
    main(sys.argv[1:])
