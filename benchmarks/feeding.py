"""Do the processors of one node feed eight GPUs? Crops and draws against what they ask for.

    python -m benchmarks.feeding [--cards 8] [--tflops 400] [--batch 192] [--json FILE]

Assumed, not measured: a card sustains ``--tflops`` in an update of the paper's networks; 400 is
40 % of what an H100 does in bf16. An update costs 0.767 TFLOP for each image of each domain
(``benchmarks.gpu``), so eight such cards take 4,170 images of each domain a second.

Measured, each on one core: a sample of ``JointCrops`` (clean, degraded, real; crop, symmetry, noise
drawn anew) from stores that lie in the page cache; stacking a share; the draws of a step, which
every process makes for the whole batch before its own part is taken.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import default_collate

from benchmarks.crop_reading import PATCH, SIDE, photograph
from benchmarks.steps import SIZES
from pipeline.config.degradations import GaussianNoise
from pipeline.config.tasks import SyntheticDomain
from pipeline.datasets.batches import JointCrops
from pipeline.images.store import ImageStore, Record, write_store
from pipeline.methods.method import build_method
from pipeline.models.build import build_restorer

TFLOP_AN_IMAGE = 0.767
REPEATS = 5


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feeding")
    parser.add_argument("--cards", type=int, default=8)
    parser.add_argument("--tflops", type=float, default=400.0, help="that a card sustains")
    parser.add_argument("--batch", type=int, default=192, help="images of each domain an update")
    parser.add_argument("--json", type=Path, help="where to write every number")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), images=32, samples=256, share=24, batch=given.batch)
    found |= asked_for(given.cards, given.tflops, given.batch)
    table = Table("", "")
    for name, value in (found | verdict(found)).items():
        table.add_row(name, f"{value:,.4g}")
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found | verdict(found), indent=1) + "\n")


def asked_for(cards: int, tflops: float, batch: int) -> dict[str, float]:
    """Return what the cards take, from the assumption."""
    images = cards * tflops / TFLOP_AN_IMAGE
    return {"images/s that the cards take": images, "ms of an update": 1000 * batch / images}


def verdict(found: dict[str, float]) -> dict[str, float]:
    """Return how many cores must read, and the draws' share of an update, of every process."""
    sample = 1 / found["samples/s of a core"] + found["ms to stack a sample"] / 1000
    return {
        "cores that must read": found["images/s that the cards take"] * sample,
        "draws, share of an update": found["ms of a step's draws"] / found["ms of an update"],
    }


def measure(folder: Path, images: int, samples: int, share: int, batch: int) -> dict[str, float]:
    """Return rates of one core; medians, in processor time, which other work disturbs least."""
    crops = joint_crops(folder, images)
    stacked = [crops[number] for number in range(share)]
    size = SIZES["paper"]
    with torch.device("meta"):
        method = build_method(build_restorer(size.restorer), size.method)
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, size.patch, size.patch)
    reading = _seconds(lambda: [crops[number] for number in range(samples)])
    return {
        "samples/s of a core": samples / reading,
        "ms to stack a sample": 1000 * _seconds(lambda: default_collate(stacked)) / share,
        "ms of a step's draws": 1000 * _seconds(lambda: method.draw(generator, shape)),
    }


def joint_crops(folder: Path, images: int) -> JointCrops:
    """Return the data of a training on photographs of 512x512, Gaussian noise drawn anew."""
    pixels = [photograph(number) for number in range(images)]

    def write(name: str, role: str) -> ImageStore:
        loaders: list[dict[str, Any]] = [{role: lambda p=p: p} for p in pixels]
        records = [
            Record(f"p{n}", f"p{n}", "benchmark", SIDE, SIDE, **loader)
            for n, loader in enumerate(loaders)
        ]
        write_store(folder / f"{name}.h5", records)
        return ImageStore(folder / f"{name}.h5")

    noise = GaussianNoise(kind="gaussian_noise", sigma_255=(0.0, 75.0))
    domain = SyntheticDomain(degradation=noise, draw="anew", copies=1)
    return JointCrops(write("synthetic", "clean"), write("real", "degraded"), domain, PATCH, seed=0)


def _seconds(work: Callable[[], Any]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return statistics.median(times)


if __name__ == "__main__":
    main()
