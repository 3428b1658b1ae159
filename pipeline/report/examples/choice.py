"""Which restored images the report shows, by rule and never by hand, and their pixels."""

from dataclasses import dataclass

import numpy as np

from pipeline.config.params import Params
from pipeline.images.pixels import Pixels
from pipeline.images.store import ImageStore
from pipeline.report.figures.drawing import over_seeds
from pipeline.report.results import DataSet, bounds
from pipeline.report.tables.scores import baseline, compared_methods, restorer_label
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import DEGRADED, IMAGES_FILE, Run, task_images

CROP_PIXELS = 192
"""Four columns of it fit a page without resampling, so that every pixel is seen as it is."""

TEST_FILE = "test.h5"
CLEAN = "clean"


@dataclass(frozen=True)
class Panel:
    """One picture of a row: its crop, and the PSNR in dB of the whole image if there is one."""

    title: str
    pixels: Pixels
    psnr: float | None


@dataclass(frozen=True)
class Example:
    """One test image: degraded, restored by every method, clean if there is one."""

    image: str
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Examples:
    """The images shown of one data set and the rule that chose them."""

    rule: str
    rows: tuple[Example, ...]


def spread(total: int, count: int) -> list[int]:
    """Return ``count`` places evenly spread over ``total``: first to last, or the middle one."""
    count = min(total, count)
    if count == 1:
        return [(total - 1) // 2]
    return [int(place) for place in np.linspace(0, total - 1, count)]


def choose(gains: dict[str, float], count: int) -> list[str]:
    """Return ``count`` images evenly spread over their order of gain, the largest first.

    So three images are the best, the median and the worst. Of equal gains the earlier comes first.
    """
    ordered = sorted(gains, key=lambda image: -gains[image])
    return [ordered[place] for place in spread(len(ordered), count)]


def compared(params: Params) -> tuple[str, str]:
    """Return the method whose gain orders the images, and what it is held against.

    One that was given the truth chooses none, unless there is nothing else.
    """
    base, others = baseline(params), compared_methods(params)
    if base is not None and others:
        return others[-1], base
    competing = [name for name in params.methods if name not in bounds(params)]
    return (competing or list(params.methods))[-1], DEGRADED


def examples(params: Params, data_set: DataSet) -> Examples:
    """Return the images of a data set to be shown, of the first seed.

    Raises:
        UserError: a store is missing or lacks an image.
    """
    pictures = open_pictures(params, data_set, list(params.methods))
    stored = pictures.stored_by_all()
    ranked, rule, titles = _ranked(params, data_set, stored)
    return Examples(
        rule=f"{rule} {pictures.shown_how}",
        rows=tuple(
            Example(image, titles[image], pictures.panels(data_set, image)) for image in ranked
        ),
    )


@dataclass(frozen=True)
class Pictures:
    """The test images of a data set, and what the restorers of one seed made of some of them."""

    data_set: str
    seed: int
    test: ImageStore
    restored: dict[str, ImageStore]

    @property
    def shown_how(self) -> str:
        """What a caption says of every picture."""
        return (
            f"Restored with seed {self.seed}. Each picture is the middle of its image, at most"
            f" {CROP_PIXELS} pixels wide and high; the PSNR is of the whole image."
        )

    def stored_by_all(self) -> list[str]:
        """Return the images that every restorer stored, in the order of the test set."""
        return [
            image
            for image, name in zip(self.test.ids, self.test.data_sets, strict=True)
            if name == self.data_set and all(image in s.ids for s in self.restored.values())
        ]

    def panels(self, data_set: DataSet, image: str) -> tuple[Panel, ...]:
        """Return degraded input, what the restorers that stored it made of it, and the truth."""
        place = data_set.ids.index(image) if image in data_set.ids else None
        index = _index(self.test, image)
        stores = {DEGRADED: (self.test, "degraded")}
        stores |= {
            method: (store, "restored")
            for method, store in self.restored.items()
            if image in store.ids
        }
        panels = [
            Panel(
                title=restorer_label(name),
                pixels=_crop(store.image(role, _index(store, image))),
                psnr=None if place is None else float(data_set.psnr[name][0][place]),
            )
            for name, (store, role) in stores.items()
        ]
        if self.test.has(CLEAN, index):
            panels.append(Panel(CLEAN, _crop(self.test.image(CLEAN, index)), None))
        return tuple(panels)


def open_pictures(params: Params, data_set: DataSet, methods: list[str]) -> Pictures:
    """Return the pictures of a data set by these methods, with the first seed.

    Raises:
        UserError: a store is missing.
    """
    seed = params.seeds[0]
    restored = {
        method: ImageStore(Run(data_set.task, method, seed).evaluation / IMAGES_FILE)
        for method in methods
    }
    test = ImageStore(task_images(data_set.task) / TEST_FILE)
    return Pictures(data_set.name, seed, test, restored)


def mean_gains(data_set: DataSet, method: str, other: str) -> dict[str, float]:
    """Return the PSNR in dB of one restorer minus another's by image, mean over the seeds."""
    gains = data_set.psnr[method].mean(axis=0) - data_set.psnr[other].mean(axis=0)
    return dict(zip(data_set.ids, map(float, gains), strict=True))


def _ranked(
    params: Params, data_set: DataSet, stored: list[str]
) -> tuple[list[str], str, dict[str, str]]:
    """Return the images chosen, the rule in words, and a title for each image."""
    count = params.report.examples
    method, other = compared(params)
    all_gains = mean_gains(data_set, method, other)
    gains = {image: all_gains[image] for image in stored if image in all_gains}
    if not gains:
        rule = (
            f"Chosen evenly, in the order of the test set, over the {len(stored)} of"
            f" {len(data_set.ids) + data_set.unscored} images that every restorer stored."
        )
        chosen = [stored[index] for index in spread(len(stored), count)]
        return chosen, rule, {image: image for image in chosen}
    order = choose(gains, len(gains))
    titles = {
        image: f"rank {rank} of {len(order)}, gain {gains[image]:+.2f} dB"
        for rank, image in enumerate(order, start=1)
    }
    named = {(len(order) - 1) // 2: "median", len(order) - 1: "smallest", 0: "largest"}
    of_stored = f" of the {len(gains)} stored" if len(gains) < len(all_gains) else ""
    for index, name in named.items():
        titles[order[index]] = f"{name} gain{of_stored}, {gains[order[index]]:+.2f} dB"
    rule = (
        f"Chosen by the gain in PSNR of {restorer_label(method)} over {restorer_label(other)}"
        f"{over_seeds(params)}, among the {len(gains)} of {len(all_gains)} images that every"
        " restorer stored, evenly from the largest to the smallest (three images: the best, the"
        " median, the worst; one image: the median)."
    )
    return choose(gains, count), rule, titles


def _index(store: ImageStore, image: str) -> int:
    if image not in store.ids:
        raise UserError(f"{store.path}: lacks the image {image!r}; run 'dvc repro'")
    return store.ids.index(image)


def _crop(pixels: Pixels) -> Pixels:
    """Return the middle of an image, enlarged by a whole factor if it is small."""
    height, width, _ = pixels.shape
    side_y, side_x = min(height, CROP_PIXELS), min(width, CROP_PIXELS)
    top, left = (height - side_y) // 2, (width - side_x) // 2
    crop = pixels[top : top + side_y, left : left + side_x]
    factor = CROP_PIXELS // max(side_y, side_x)
    enlarged: Pixels = crop.repeat(factor, axis=0).repeat(factor, axis=1)
    return enlarged
