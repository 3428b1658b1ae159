"""Restore images that are NumPy arrays, of any kind that photographs have."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.config.build import build
from pipeline.config.running import Evaluate
from pipeline.images.pixels import Image
from pipeline.inference.model import load_model
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import find_model

TOPS = {"uint8": 255, "uint16": 65_535, "float32": 1}
"""The value that is white."""
Kind = TypeVar("Kind", np.uint8, np.uint16, np.float32)


class ArrayRestorer:
    """A trained restorer of arrays."""

    def __init__(self, restore: Callable[[Image], Image], facts: dict[str, Any]) -> None:
        """Take what restores (height, width, 3) float32 in [0, 1], and facts of it."""
        self._restore = restore
        self.facts = facts

    def __call__(self, image: NDArray[Kind]) -> NDArray[Kind]:
        """Return the restored image, of the shape and kind of the given one.

        Args:
            image: (height, width) or (height, width, 1) grey, or (height, width, 3) RGB; uint8,
                uint16, or float32 in [0, 1]. Results in float32 are not clamped.

        Raises:
            ValueError: another shape or kind, or values that are not finite.
        """
        kind = image.dtype
        if str(kind) not in TOPS:
            raise ValueError(f"found {kind} values, expected uint8, uint16 or float32")
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
            raise ValueError(
                f"found shape {image.shape}, expected (height, width), (height, width, 1) or"
                " (height, width, 3)"
            )
        top = TOPS[str(kind)]
        numbers = image.astype(np.float32) / np.float32(top)
        if not np.isfinite(numbers).all():
            raise ValueError("found values that are not finite")
        grey = image.ndim == 2 or image.shape[2] == 1
        colours = np.repeat(numbers.reshape(*image.shape[:2], -1), 3, axis=2) if grey else numbers
        restored: NDArray[Any] = self._restore(colours)
        if grey:
            restored = restored.mean(axis=2, dtype=np.float64).reshape(image.shape)
        if top != 1:
            restored = np.rint(np.clip(restored, 0, 1) * top)
        return restored.astype(kind)


def load_array_restorer(
    model: str | Path, tile: int, overlap: int, precision: str, threads: int | None
) -> ArrayRestorer:
    """Return what ``pipeline.inference.load`` promises."""
    values = {
        "precision": precision, "threads": threads or len(os.sched_getaffinity(0)), "batch": 1,
        "processes": 0, "lpips_weights": None, "tile": tile, "tile_overlap": overlap,
        "kept_images": 0,
    }  # fmt: skip
    settings: Evaluate = build(Evaluate, values, "load")
    if overlap * 2 > tile:
        raise UserError(f"overlap: found {overlap}, expected at most half of tile = {tile}")
    loaded = load_model(find_model(str(model)), settings)
    return ArrayRestorer(loaded, loaded.facts())
