"""Rows of an image that come in bands, kept as long as they are needed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
"""(rows, width, channels) uint8, uint16 or float32."""


class Window:
    """Rows that come in bands from the top, kept until they are forgotten."""

    def __init__(self, bands: Iterator[Values]) -> None:
        self.bands = bands
        self.waiting: Values | None = None
        self.top = 0

    def rows(self, rows: slice) -> Values:
        """Return rows, after taking as many bands as it needs.

        Raises:
            ValueError: some of them were forgotten.
        """
        if rows.start < self.top:
            raise ValueError(f"rows from {rows.start} are asked for, those to {self.top} forgotten")
        parts = [] if self.waiting is None else [self.waiting]
        have = self.top + sum(map(len, parts))
        while have < rows.stop:
            parts.append(next(self.bands))
            have += len(parts[-1])
        self.waiting = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self.waiting[rows.start - self.top : rows.stop - self.top]

    def forget(self, before: int) -> None:
        """Free the memory of the rows before a row."""
        if self.waiting is not None and before > self.top:
            self.waiting = self.waiting[before - self.top :].copy()
            self.top = before
