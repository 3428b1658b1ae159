"""Which restored images an evaluation stores for the report: some of each data set, and failures.

Of the images of a data set ``count`` are spread evenly over its order, the same for every restorer.
Beside them are those that the restorer left with the smallest gain in PSNR over the degraded input:
where it does harm is not left to chance. Both depend on nothing but the images and the restorer.
"""

import numpy as np

from pipeline.evaluation.metrics import PERFECT_PSNR, psnr
from pipeline.images.pixels import Pixels, as_float
from pipeline.images.store import ImageStore, Record

FAILURES = 5
"""Images of the smallest gain that are stored of each data set, and shown as failures."""


class KeptImages:
    """Restored images to be stored; of failures no more are held than will be stored."""

    def __init__(self, store: ImageStore, count: int, protocol: str, failures: int) -> None:
        """Keep ``count`` of each data set and ``failures`` more with the smallest gains in dB."""
        self.store, self.protocol, self.failures = store, protocol, failures
        self.spread = _spread(store.data_sets, count)
        self.records: dict[int, Record] = {}
        self.gains: dict[str, dict[int, float]] = {name: {} for name in store.data_sets}

    def offer(self, index: int, restored: Pixels, score: float | None) -> None:
        """Keep an image if it is to be stored; ``score`` is its PSNR in dB, None without truth."""
        gain = None if score is None or not self.failures else score - self._before(index)
        if index in self.spread or gain is not None:
            self.records[index] = _record(self.store, index, restored)
        if gain is None:
            return
        gains = self.gains[self.store.data_sets[index]]
        gains[index] = gain
        if len(gains) > self.failures:
            # of equal gains the earlier image stays, whatever the order in which they come
            largest = max(gains, key=lambda place: (gains[place], place))
            del gains[largest]
            if largest not in self.spread:
                del self.records[largest]

    def in_order(self) -> list[Record]:
        """Return the images kept, in the store's order."""
        return [self.records[index] for index in sorted(self.records)]

    def _before(self, index: int) -> float:
        """Return the PSNR of the degraded input."""
        degraded, clean = (
            as_float(self.store.image(role, index)) for role in ("degraded", "clean")
        )
        return min(psnr(degraded, clean, self.protocol), PERFECT_PSNR)


def _spread(data_sets: list[str], count: int) -> set[int]:
    """Return ``count`` places of each data set, evenly from its first image to its last."""
    chosen: set[int] = set()
    for name in dict.fromkeys(data_sets):
        places = [place for place, other in enumerate(data_sets) if other == name]
        evenly = np.linspace(0, len(places) - 1, min(count, len(places)), dtype=int)
        chosen |= {places[number] for number in evenly}
    return chosen


def _record(store: ImageStore, index: int, restored: Pixels) -> Record:
    height, width, _ = restored.shape
    about = store.about(index) | {"height": height, "width": width}
    return Record(**about, restored=lambda: restored)
