"""Images restored and scored a second: this project against one by one, as in the release.

Usage: python -m benchmarks.evaluation [--model RUN_OR_FILE] [--test STORE] [--copies N]

One by one: restore an image, score it, take the next. Here: batches of equal size, scored in
processes of their own. Both run the same model on the same images: each row says whether the
numbers are equal or by how much they differ, and in fp32 more than rounding is an error. The last
row says what bf16 changes.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.running import Evaluate
from pipeline.evaluation.evaluate import ImageScore, evaluate, read_table
from pipeline.evaluation.metrics import score
from pipeline.images.pixels import as_float
from pipeline.images.store import ImageStore, Record, write_store
from pipeline.runtime.paths import TABLE_FILE, Run, find_model, task_images

PROTOCOL = "sidd"
BATCH = 16
ROUNDING = 1e-6
"""Of PSNR in dB and of SSIM: sums of fp32 in another order change no more."""


def measure(
    model: Path, test: Path, threads: int, processes: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Return for each way images a second (one a repeat) and the differences to one by one."""
    plain = Evaluate("fp32", threads, 1, 0, None, tile=1024, tile_overlap=64, kept_images=0)
    ways = {
        "batches": replace(plain, batch=BATCH),
        "processes": replace(plain, processes=processes),
        "batches and processes": replace(plain, batch=BATCH, processes=processes),
        "the same in bf16": replace(
            plain, batch=BATCH, processes=processes, precision="bf16"
        ),
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {name: {"rates": []} for name in ("one by one", *ways)}
    for _ in range(repeats):
        started = time.perf_counter()
        reference = _one_by_one(model, test, plain)
        found["one by one"]["rates"].append(len(reference) / (time.perf_counter() - started))
        for name, settings in ways.items():
            started = time.perf_counter()
            rows = _ours(model, test, settings)
            found[name]["rates"].append(len(rows) / (time.perf_counter() - started))
            found[name] |= _differences(rows, reference)
    return found


def agreement(found: dict[str, Any]) -> str:
    """Return in words how far the numbers of a way are from those of one by one."""
    if found["psnr"] == found["ssim"] == 0:
        return "numbers equal to the last digit"
    return (
        f"numbers differ by at most {found['psnr']:.1e} dB, {found['ssim']:.1e}; mean PSNR by"
        f" {found['mean_psnr']:+.4f} dB"
    )


def disagreeing(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the ways in fp32 whose numbers differ by more than rounding."""
    return [
        way
        for way, values in found.items()
        if "psnr" in values and "bf16" not in way and max(values["psnr"], values["ssim"]) > ROUNDING
    ]


def repeat_images(test: Path, copies: int, path: Path) -> None:
    """Write the images of a store several times over, each under a name of its own."""
    store = ImageStore(test)

    def record(index: int, copy: int) -> Record:
        return Record(
            id=f"{store.ids[index]}_{copy}",
            scene=store.scenes[index],
            data_set=store.data_sets[index],
            height=int(store.heights[index]),
            width=int(store.widths[index]),
            degraded=lambda: store.image("degraded", index),
            clean=lambda: store.image("clean", index),
        )

    write_store(
        path, [record(index, copy) for copy in range(copies) for index in range(len(store))]
    )


def _one_by_one(model: Path, test: Path, settings: Evaluate) -> list[tuple[float, float]]:
    from pipeline.inference.model import load_model  # not for the processes that score

    restore = load_model(model, settings)
    store = ImageStore(test)
    scores = []
    for index in range(len(store)):
        restored = restore(as_float(store.image("degraded", index)))
        found = score(restored, as_float(store.image("clean", index)), PROTOCOL)
        scores.append((found.psnr, found.ssim))
    return scores


def _ours(model: Path, test: Path, settings: Evaluate) -> list[ImageScore]:
    from pipeline.inference.model import load_model

    run = Run("benchmark", "model", 0)
    loaded = load_model(model, settings)
    evaluate(loaded.restore_equal, test, test, PROTOCOL, settings, run, {})
    return read_table(run.evaluation / TABLE_FILE)


def _differences(rows: list[ImageScore], reference: list[tuple[float, float]]) -> dict[str, float]:
    ours = np.array([(row.psnr, row.ssim) for row in rows])
    difference = ours - np.array(reference)
    largest = np.abs(difference).max(axis=0)
    return {
        "psnr": float(largest[0]), "ssim": float(largest[1]),
        "mean_psnr": float(difference[:, 0].mean()),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="denoise/noise_space-0")
    parser.add_argument("--test", type=Path, default=task_images("denoise") / "test.h5")
    parser.add_argument("--copies", type=int, default=8, help="of the test images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    model, test = find_model(given.model).resolve(), given.test.resolve()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # what an evaluation writes goes here
        repeat_images(test, given.copies, Path("test.h5"))
        found = measure(model, Path("test.h5"), given.threads, given.processes, given.repeats)
        os.chdir("/")
    plain = found["one by one"]["rates"]
    for way, values in found.items():
        ratios = [rate / other for rate, other in zip(values["rates"], plain, strict=True)]
        rate, ratio = statistics.median(values["rates"]), statistics.median(ratios)
        print(f"{way:<22} {rate:7.2f} images/s, {ratio:.2f} times"
              f" ({min(ratios):.2f} to {max(ratios):.2f})", end="")  # fmt: skip
        if "psnr" in values:
            print(f"; {agreement(values)}", end="")
        print()
    if wrong := disagreeing(found):
        raise SystemExit(f"error: more than rounding apart from one by one: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
