"""Restore the test images of a task with one model, and score each under the task's protocol."""

import json
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.running import Evaluate
from pipeline.evaluation.kept_images import FAILURES, KeptImages
from pipeline.evaluation.lpips import SMALLEST_SIDE, Distances, load_lpips
from pipeline.evaluation.metrics import PERFECT_PSNR, Score
from pipeline.evaluation.niqe import Natural, fit_store, middle, niqe
from pipeline.evaluation.workers import Submit, score_of, scoring
from pipeline.images.pixels import Image, Pixels, as_float, to_uint8
from pipeline.images.store import ImageStore, write_store
from pipeline.runtime.csv_files import csv_text, read_csv
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.runtime.paths import DEGRADED, FACTS_FILE, IMAGES_FILE, TABLE_FILE, Run

SCORES = ("psnr", "ssim", "lpips")
MEASURED = "measured"
"""Stands in FACTS_FILE where LPIPS or NIQE was measured; else the reason why not."""

ABOUT = ("data_set", "scene", "id", "domain", "degraded_by", "seen")
"""What a row of the table takes over from the store."""
WAITING = 4
"""Batches whose scores may be outstanding; bounds the memory."""

Restore = Callable[[list[Image]], list[Image]]
"""Restores images of equal size, at once if it can."""


@dataclass(frozen=True)
class ImageScore:
    """One row of the per-image table; scores are None where not measured.

    ``domain``, ``degraded_by`` and ``seen`` are those of the store's ``Record``. psnr and ssim are
    None where there is no clean image, lpips also where there are no weights. niqe is measured
    where no image of the data set has a clean one; None also where the image is too small for it.
    """

    data_set: str
    scene: str
    id: str
    domain: str
    degraded_by: str
    seen: bool
    protocol: str
    psnr: float | None
    ssim: float | None
    lpips: float | None = None
    niqe: float | None = None


@dataclass(frozen=True)
class Restored:
    """One restored image and the promises of its scores, None where they are not measured."""

    index: int
    pixels: Pixels
    score: "Future[Score] | None"
    lpips: float | None
    niqe: "Future[float | None] | None"

    @property
    def known(self) -> bool:
        """Whether its scores need not be waited for."""
        return all(promise is None or promise.done() for promise in (self.score, self.niqe))


def evaluate(
    restore: Restore,
    test: Path,
    clean: Path,
    protocol: str,
    settings: Evaluate,
    run: Run,
    facts: dict[str, Any],
) -> None:
    """Write the per-image table, some restored images, facts, and the means.

    Images of equal size are restored ``settings.batch`` at a time, and scored meanwhile in
    ``settings.processes`` processes. The table is in the store's order.

    Args:
        restore: the model, or the identity for the degraded input.
        test: store of the test images.
        clean: store of clean photographs, which NIQE is fitted on where a data set has no truth.
        protocol: name of the protocol, see ``pipeline/evaluation/metrics.py``.
        settings: ``kept_images`` of each data set are stored, see ``kept_images.py``.
        run: names the files to write.
        facts: what the model restored with, stored beside its scores; see ``Model.facts`` in
            pipeline/inference/model.py. Empty for the degraded input.

    Raises:
        UserError: the store is missing, an image is too small to be scored, or the model gives
            values that are not finite.
    """
    store = ImageStore(test)
    # the degraded input gains nothing over itself
    failures = FAILURES if settings.kept_images and run.method != DEGRADED else 0
    kept = KeptImages(store, settings.kept_images, protocol, failures)
    lpips = load_lpips(settings.lpips_weights)
    blind = _without_truth(store)
    natural = fit_store(ImageStore(clean)) if blind else None
    naturals = dict.fromkeys(blind, natural) if isinstance(natural, Natural) else {}
    rows: dict[int, ImageScore] = {}
    waiting: deque[Restored] = deque()

    def finish(done: Restored) -> None:
        rows[done.index] = row = _row(store, done, protocol)
        kept.offer(done.index, done.pixels, row.psnr)

    with scoring(settings.processes) as submit:
        for batch in batches(store, settings.batch):
            images = restore([as_float(store.image("degraded", index)) for index in batch])
            _require_finite(store, batch, images, run)
            waiting += _submit(store, batch, images, protocol, submit, lpips, naturals)
            while waiting and (waiting[0].known or len(waiting) > WAITING * settings.batch):
                finish(waiting.popleft())
        while waiting:
            finish(waiting.popleft())
    listed = [rows[index] for index in range(len(store))]
    facts = {**facts, "lpips": lpips if isinstance(lpips, str) else MEASURED}
    if blind:
        facts["niqe"] = natural if isinstance(natural, str) else MEASURED
    write_store(run.evaluation / IMAGES_FILE, kept.in_order())
    write_text(run.evaluation / TABLE_FILE, _table(listed))
    write_text(run.evaluation / FACTS_FILE, json.dumps(facts, indent=2) + "\n")
    write_text(run.metrics, json.dumps(_means(listed), indent=2) + "\n")


def _without_truth(store: ImageStore) -> set[str]:
    """Return the data sets of which no image has a clean one."""
    scored = (store.data_sets[place] for place in range(len(store)) if store.has("clean", place))
    return set(store.data_sets).difference(scored)


def batches(store: ImageStore, size: int) -> list[list[int]]:
    """Return places of images of equal size in lists of at most ``size``, in the store's order."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index in range(len(store)):
        key = int(store.heights[index]), int(store.widths[index])
        by_size.setdefault(key, []).append(index)
    return [
        places[start : start + size]
        for places in by_size.values()
        for start in range(0, len(places), size)
    ]


def read_table(path: Path) -> list[ImageScore]:
    """Return the rows of a per-image table.

    Raises:
        UserError: the file is missing.
    """
    return [
        ImageScore(
            data_set=row["data_set"],
            scene=row["scene"],
            id=row["id"],
            domain=row["domain"],
            degraded_by=row["degraded_by"],
            seen=row["seen"] == str(True),
            protocol=row["protocol"],
            **{name: float(row[name]) if row.get(name) else None for name in (*SCORES, "niqe")},
        )
        for row in read_csv(path)
    ]


def _require_finite(store: ImageStore, batch: list[int], images: list[Image], run: Run) -> None:
    for index, image in zip(batch, images, strict=True):
        if not np.isfinite(image).all():
            raise UserError(
                f"{run.training}: the model turns {store.ids[index]!r} into values that are not"
                " finite; train it anew with a lower learning rate or weight"
            )


def _submit(
    store: ImageStore,
    batch: list[int],
    images: list[Image],
    protocol: str,
    submit: Submit,
    lpips: Distances | str,
    naturals: dict[str, Natural],
) -> list[Restored]:
    """Return the batch with promises of its scores; LPIPS is measured at once.

    ``naturals``: the model of clean photographs for each data set whose NIQE is measured.
    """
    clean = {index: store.image("clean", index) for index in batch if store.has("clean", index)}
    scores = {index: submit(score_of, image, clean[index], protocol)
              for index, image in zip(batch, images, strict=True) if index in clean}  # fmt: skip
    blind = {index: submit(niqe, middle(image), natural)
             for index, image in zip(batch, images, strict=True)
             if (natural := naturals.get(store.data_sets[index]))}  # fmt: skip
    distances: dict[int, float] = {}
    large_enough = min(images[0].shape[:2]) >= SMALLEST_SIDE
    if clean and large_enough and not isinstance(lpips, str):
        restored = [image for index, image in zip(batch, images, strict=True) if index in clean]
        found = lpips(restored, [as_float(image) for image in clean.values()])
        distances = dict(zip(clean, found, strict=True))
    return [
        Restored(index, to_uint8(image), scores.get(index), distances.get(index), blind.get(index))
        for index, image in zip(batch, images, strict=True)
    ]


def _row(store: ImageStore, done: Restored, protocol: str) -> ImageScore:
    about = store.about(done.index)
    psnr = ssim = None
    if done.score:
        try:
            found = done.score.result()
        except UserError as error:
            name = store.ids[done.index]
            raise UserError(f"{store.path}: image {name!r}: {error}") from None
        psnr, ssim = min(found.psnr, PERFECT_PSNR), found.ssim
    return ImageScore(
        **{name: about[name] for name in ABOUT},
        protocol=protocol,
        psnr=psnr,
        ssim=ssim,
        lpips=done.lpips,
        niqe=done.niqe.result() if done.niqe else None,
    )


def _table(rows: list[ImageScore]) -> str:
    """Return the table; without a column of NIQE where it was measured of no image."""
    columns = list(ImageScore.__dataclass_fields__)
    if all(row.niqe is None for row in rows):
        columns.remove("niqe")
    return csv_text(columns, (tuple(asdict(row)[name] for name in columns) for row in rows))


def _means(rows: list[ImageScore]) -> dict[str, dict[str, float | int | str]]:
    means: dict[str, dict[str, float | int | str]] = {}
    for data_set in dict.fromkeys(row.data_set for row in rows):
        scored = [asdict(row) for row in rows if row.data_set == data_set and row.psnr is not None]
        if scored:
            measured = [name for name in SCORES if all(row[name] is not None for row in scored)]
            means[data_set] = {
                **{name: math.fsum(row[name] for row in scored) / len(scored) for name in measured},
                "images": len(scored),
                "protocol": scored[0]["protocol"],
            }
    return means
