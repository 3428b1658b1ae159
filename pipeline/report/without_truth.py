"""Restored photographs of which no truth is known: NIQE before and after, by clean ones beside."""

import math
from collections.abc import Iterator
from pathlib import Path

from pipeline.evaluation.niqe import LARGEST_SIDE, Natural, fit, niqe
from pipeline.images.pixels import Image
from pipeline.images.reading.decoding import BAND_ROWS
from pipeline.images.reading.folders import walk
from pipeline.inference.photographs.reading import open_photograph
from pipeline.inference.photographs.restore import rgb_of
from pipeline.runtime.errors import UserError


def fit_below(folder: Path, largest_pixels: int) -> Natural:
    """Return the model of the clean photographs below a folder, of at most so many pixels each.

    Raises:
        UserError: there is no folder, too few photographs in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected clean photographs")
    return fit(middle(path, largest_pixels) for path in walk(folder, follow=True).images)


def niqe_lines(
    pairs: list[tuple[Path, Path]], natural: Natural, largest_pixels: int
) -> Iterator[str]:
    """Yield a line for each photograph and its restored file, and one of their means."""
    scores = []
    for paths in pairs:
        before, after = (niqe(middle(path, largest_pixels), natural) for path in paths)
        if before is None or after is None:
            yield f"{paths[0]}: too small for NIQE"
        else:
            scores.append((before, after))
            yield f"{paths[0]}: NIQE {before:.2f} before, {after:.2f} after"
    if scores:
        before, after = (math.fsum(side) / len(scores) for side in zip(*scores, strict=True))
        yield (
            f"NIQE {before:.2f} before, {after:.2f} after, the mean of {len(scores)}: lower is more"
            " like the clean ones. It knows no truth: made-up texture scores well. Look too"
        )


def middle(path: Path, largest_pixels: int) -> Image:
    """Return the middle of a photograph as RGB in [0, 1], at most LARGEST_SIDE on a side."""
    picture = open_photograph(path, str(path), largest_pixels, lenient=True, page=0)
    height, width = (min(side, LARGEST_SIDE) for side in (picture.form.height, picture.form.width))
    top, left = (picture.form.height - height) // 2, (picture.form.width - width) // 2
    for row in range(0, top, BAND_ROWS):  # so that never all of it is held
        picture.rows(slice(row, min(row + BAND_ROWS, top)))
        picture.upright.forget(row)
    rows = rgb_of(picture, slice(top, top + height), *picture.value_range)
    return rows[:, left : left + width]
