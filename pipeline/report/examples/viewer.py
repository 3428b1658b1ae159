"""Before and after: versions of one image that a slider compares, two at a time."""

from dataclasses import dataclass

import numpy as np

from pipeline.config.params import Params
from pipeline.images.pixels import Pixels
from pipeline.report.examples.choice import CLEAN, Example, Examples, Panel, compared
from pipeline.report.figures.drawing import PAGE_QUALITY, pixels_to_webp
from pipeline.report.tables.scores import restorer_label
from pipeline.runtime.paths import DEGRADED

AMPLIFIED = 4
"""Differences are shown this many times as large, around grey."""
GREY_LEVEL = 128


@dataclass(frozen=True)
class ViewerLayer:
    """One version of an image; ``score`` is what is said beside its name."""

    label: str
    score: str
    webp: bytes
    alt: str


@dataclass(frozen=True)
class Comparison:
    """Versions of one image, of which ``left`` and ``right`` are shown at first."""

    title: str
    layers: tuple[ViewerLayer, ...]
    left: int
    right: int
    width: int
    height: int


def comparisons(params: Params, examples: Examples) -> list[Comparison]:
    """Return a comparison for every example: degraded, restored, clean and the differences.

    Of many methods only the compared one and what it is held against are shown.
    """
    method, other = compared(params)
    shown = dict.fromkeys((DEGRADED, other, method))
    labels = [restorer_label(name) for name in shown]
    return [_comparison(row, labels) for row in examples.rows]


def difference(restored: Pixels, clean: Pixels) -> Pixels:
    """Return (restored - clean) as a picture: grey where equal, 4 times as strong, clamped."""
    signed = GREY_LEVEL + AMPLIFIED * (restored.astype(np.int16) - clean.astype(np.int16))
    picture: Pixels = signed.clip(0, 255).astype(np.uint8)
    return picture


def _comparison(row: Example, labels: list[str]) -> Comparison:
    panels = {panel.title: panel for panel in row.panels}
    labels = [label for label in labels if label in panels]  # a failure may lack one
    layers = [_layer(row.image, panels[label]) for label in labels]
    clean = panels.get(CLEAN)
    if clean:
        layers.append(_layer(row.image, clean))
        for label in labels[1:]:
            pixels = difference(panels[label].pixels, clean.pixels)
            name = f"{label} minus clean, {AMPLIFIED} times"
            layers.append(_layer(row.image, Panel(name, pixels, None)))
    height, width, _ = row.panels[0].pixels.shape
    return Comparison(row.title, tuple(layers), 0, len(labels) - 1, width, height)


def _layer(image: str, panel: Panel) -> ViewerLayer:
    score = "" if panel.psnr is None else f"{panel.psnr:.2f} dB"
    alt = f"{image}, {panel.title}" + (f", PSNR {score}" if score else "")
    return ViewerLayer(panel.title, score, pixels_to_webp(panel.pixels, PAGE_QUALITY), alt)
