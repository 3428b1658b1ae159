"""Which restored images the report shows, by rule and never by hand, and their pixels."""

from dataclasses import dataclass

import numpy as np

from pipeline.config import Params
from pipeline.errors import UserError
from pipeline.images import Pixels
from pipeline.paths import DEGRADED, IMAGES_FILE, Run, task_images
from pipeline.report.collect import DataSet
from pipeline.report.tables import baseline, restorer_label
from pipeline.store import ImageStore

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
    """Return the method whose gain orders the images, and what it is held against."""
    base = baseline(params)
    others = [name for name in params.methods if name != base]
    if base is None or not others:
        return list(params.methods)[-1], DEGRADED
    return others[-1], base


def examples(params: Params, data_set: DataSet) -> Examples:
    """Return the images of a data set to be shown, of the first seed.

    Raises:
        UserError: a store is missing or lacks an image.
    """
    seed = params.seeds[0]
    test = ImageStore(task_images(data_set.task) / TEST_FILE)
    restored = {
        method: ImageStore(Run(data_set.task, method, seed).evaluation / IMAGES_FILE)
        for method in params.methods
    }
    stored = [
        image
        for image, name in zip(test.ids, test.data_sets, strict=True)
        if name == data_set.name and all(image in store.ids for store in restored.values())
    ]
    ranked, rule, titles = _ranked(params, data_set, stored)
    return Examples(
        rule=f"{rule} Restored with seed {seed}. Each picture is the middle of its image, at most"
        f" {CROP_PIXELS} pixels wide and high; the PSNR is of the whole image.",
        rows=tuple(
            Example(image, titles[image], _panels(data_set, image, test, restored))
            for image in ranked
        ),
    )


def _ranked(
    params: Params, data_set: DataSet, stored: list[str]
) -> tuple[list[str], str, dict[str, str]]:
    """Return the images chosen, the rule in words, and a title for each image."""
    count = params.report.examples
    place = {image: index for index, image in enumerate(data_set.ids)}
    method, other = compared(params)
    gain = data_set.psnr[method][0] - data_set.psnr[other][0]
    gains = {image: float(gain[place[image]]) for image in stored if image in place}
    if not gains:
        rule = f"Chosen evenly over the {len(stored)} stored images, in the order of the test set."
        chosen = [stored[index] for index in spread(len(stored), count)]
        return chosen, rule, {image: image for image in chosen}
    order = choose(gains, len(gains))
    titles = {
        image: f"rank {rank} of {len(order)}, gain {gains[image]:+.2f} dB"
        for rank, image in enumerate(order, start=1)
    }
    named = {(len(order) - 1) // 2: "median", len(order) - 1: "smallest", 0: "largest"}
    for index, name in named.items():
        titles[order[index]] = f"{name} gain, {gains[order[index]]:+.2f} dB"
    rule = (
        f"Chosen by the gain in PSNR of {restorer_label(method)} over {restorer_label(other)}"
        f" among the {len(gains)} stored images, evenly from the largest to the smallest"
        " (three images: the best, the median, the worst; one image: the median)."
    )
    return choose(gains, count), rule, titles


def _panels(
    data_set: DataSet, image: str, test: ImageStore, restored: dict[str, ImageStore]
) -> tuple[Panel, ...]:
    place = data_set.ids.index(image) if image in data_set.ids else None
    stores = {DEGRADED: (test, "degraded")}
    stores |= {method: (store, "restored") for method, store in restored.items()}
    panels = [
        Panel(
            title=restorer_label(name),
            pixels=_crop(store.image(role, _index(store, image))),
            psnr=None if place is None else float(data_set.psnr[name][0][place]),
        )
        for name, (store, role) in stores.items()
    ]
    if test.has(CLEAN, _index(test, image)):
        panels.append(Panel(CLEAN, _crop(test.image(CLEAN, _index(test, image))), None))
    return tuple(panels)


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
