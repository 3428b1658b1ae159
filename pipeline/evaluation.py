"""Restore the test images of a task with one model, and score each under the task's protocol."""

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.images import Image, Pixels, as_float, to_uint8
from pipeline.metrics import score
from pipeline.paths import IMAGES_FILE, TABLE_FILE, Run
from pipeline.store import ImageStore, Record, write_store

PERFECT_PSNR = 100.0
"""Written where the restored image equals the clean one, whose PSNR is infinite."""

Restore = Callable[[Image], Image]


@dataclass(frozen=True)
class ImageScore:
    """One row of the per-image table; psnr and ssim are None where there is no clean image."""

    data_set: str
    scene: str
    id: str
    protocol: str
    psnr: float | None
    ssim: float | None


def evaluate(restore: Restore, test: Path, protocol: str, kept_images: int, run: Run) -> None:
    """Write the per-image table, some restored images, and the means.

    Args:
        restore: the model, or the identity for the degraded input.
        test: store of the test images.
        protocol: name of the protocol, see ``pipeline/metrics.py``.
        kept_images: how many restored images to store, spread evenly over the test images.
        run: names the files to write.

    Raises:
        UserError: the store is missing, an image is too small to be scored, or the model gives
            values that are not finite.
    """
    store = ImageStore(test)
    kept = set(np.linspace(0, len(store) - 1, min(kept_images, len(store)), dtype=int).tolist())
    rows, records = [], []
    for index in range(len(store)):
        restored = restore(as_float(store.image("degraded", index)))
        if not np.isfinite(restored).all():
            raise UserError(
                f"{run.training}: the model turns {store.ids[index]!r} into values that are not"
                " finite; train it anew with a lower learning rate or weight"
            )
        rows.append(_score(store, index, restored, protocol))
        if index in kept:
            records.append(_record(store, index, to_uint8(restored)))
    write_store(run.evaluation / IMAGES_FILE, records)
    write_text(run.evaluation / TABLE_FILE, _table(rows))
    write_text(run.metrics, json.dumps(_means(rows), indent=2) + "\n")


def read_table(path: Path) -> list[ImageScore]:
    """Return the rows of a per-image table.

    Raises:
        UserError: the file is missing.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; 'dvc repro' or 'dvc checkout' makes it")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        ImageScore(
            data_set=row["data_set"],
            scene=row["scene"],
            id=row["id"],
            protocol=row["protocol"],
            psnr=float(row["psnr"]) if row["psnr"] else None,
            ssim=float(row["ssim"]) if row["ssim"] else None,
        )
        for row in rows
    ]


def _score(store: ImageStore, index: int, restored: Image, protocol: str) -> ImageScore:
    psnr = ssim = None
    if store.has("clean", index):
        try:
            found = score(restored, as_float(store.image("clean", index)), protocol)
        except UserError as error:
            raise UserError(f"{store.path}: image {store.ids[index]!r}: {error}") from None
        psnr, ssim = min(found.psnr, PERFECT_PSNR), found.ssim
    return ImageScore(
        store.data_sets[index], store.scenes[index], store.ids[index], protocol, psnr, ssim
    )


def _record(store: ImageStore, index: int, restored: Pixels) -> Record:
    height, width, _ = restored.shape
    return Record(
        id=store.ids[index],
        scene=store.scenes[index],
        data_set=store.data_sets[index],
        height=height,
        width=width,
        restored=lambda: restored,
    )


def _table(rows: list[ImageScore]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ImageScore.__dataclass_fields__)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def _means(rows: list[ImageScore]) -> dict[str, dict[str, float | int | str]]:
    means: dict[str, dict[str, float | int | str]] = {}
    for data_set in dict.fromkeys(row.data_set for row in rows):
        scored = [asdict(row) for row in rows if row.data_set == data_set and row.psnr is not None]
        if scored:
            means[data_set] = {
                "psnr": math.fsum(row["psnr"] for row in scored) / len(scored),
                "ssim": math.fsum(row["ssim"] for row in scored) / len(scored),
                "images": len(scored),
                "protocol": scored[0]["protocol"],
            }
    return means
