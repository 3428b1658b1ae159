"""A page of restored photographs that compares each with what it was, by the report's viewer."""

from pathlib import Path

import numpy as np

from pipeline.images.pixels import Pixels, to_uint8
from pipeline.inference.photographs.reading import open_photograph
from pipeline.report.examples.viewer import Comparison, ViewerLayer
from pipeline.report.figures.drawing import pixels_to_webp
from pipeline.report.page import templates

SIDE = 1200
"""Pixels of a side that a photograph is shown with, at most: the page holds all of them."""


def before_after_page(pairs: list[tuple[Path, Path]], model: str, largest_pixels: int) -> str:
    """Return a page of HTML, whole in one file.

    Args:
        pairs: a photograph and its restored file each.
        model: what it was restored with.
        largest_pixels: what a photograph may have.

    Raises:
        UserError: a file cannot be read any more.
    """
    comparisons, reduced = [], False
    for before, after in pairs:
        given, factor = _shown(before, largest_pixels)
        restored, _ = _shown(after, largest_pixels)
        reduced |= factor > 1
        layers = tuple(
            ViewerLayer(label, "", pixels_to_webp(pixels), f"{after.name}, {label}")
            for label, pixels in (("before", given), ("after", restored))
        )
        height, width, _ = given.shape
        comparisons.append(Comparison(after.name, layers, 0, 1, width, height))
    page: str = (
        templates()
        .get_template("before_after.html")
        .render(comparisons=comparisons, model=model, reduced=SIDE if reduced else None)
    )
    return page


def _shown(path: Path, largest_pixels: int) -> tuple[Pixels, int]:
    """Return a photograph in 8-bit RGB, no larger than SIDE, and what it was divided by."""
    picture = open_photograph(path, path.name, largest_pixels, lenient=True, page=0)
    form = picture.form
    factor = min(-(-max(form.height, form.width) // SIDE), form.height, form.width)
    height, width = form.height // factor, form.width // factor
    offset, scale = picture.value_range
    top = 1 if form.bits == 32 else 2**form.bits - 1
    lines = []
    for row in range(height):
        band = picture.rows(slice(row * factor, (row + 1) * factor)).astype(np.float64)
        picture.upright.forget((row + 1) * factor)
        band = band[..., : form.channels - form.has_alpha]
        means = band[:, : width * factor].reshape(factor, width, factor, -1).mean((0, 2))
        lines.append((means / top - offset) / scale if form.bits == 32 else means / top)
    image = np.stack(lines)
    return to_uint8(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image), factor
