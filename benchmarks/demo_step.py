"""Where an update of the demo spends its time, part by part, with one and two threads.

Usage: python -m benchmarks.demo_step [--task denoise] [--updates 40]  (after dvc repro pretrain)

Trains the methods vanilla and noise_space as the demo does, and prints milliseconds of an update by
part: data, the passes of restorer and denoiser, update of the weights, and the rest. ``floor`` is
the update's multiplications at the rate of a small convolution or product in the same process. The
restorer's passes are measured alone, on the images that the method gives it; the denoiser's are
what they leave of the method's. The last line is noise_space divided by vanilla.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.updates import own_rate
from benchmarks.own_process import in_own_process
from pipeline.config.read import read_params
from pipeline.datasets.batches import Batch, batches
from pipeline.device import autocast
from pipeline.training.job import Job
from pipeline.training.loop import draws_at, progress_at, update_networks
from pipeline.training.processes import mean_terms
from pipeline.training.setup import Training, set_up

METHODS = ("vanilla", "noise_space")
WARM_UP = 3
"""Updates that are not counted: memory grows in them."""
Parts = dict[str, float]


class Clock:
    """Seconds of each part, a value an update."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Count what happens within the block."""
        begun = time.perf_counter()
        yield
        self.seconds[part].append(time.perf_counter() - begun)

    def milliseconds(self, part: str) -> float:
        """Return the median of a part."""
        return 1000 * statistics.median(self.seconds[part][WARM_UP:])


def measure(task: str, method: str, threads: int, updates: int) -> Parts:
    """Return the milliseconds of each part of an update, and of its ``floor`` and ``whole``."""
    params = read_params()
    job = Job.of_method(params, task, method, params.seeds[0])
    with tempfile.TemporaryDirectory() as name:
        settings = replace(job.train, threads=threads)
        job = replace(job, train=settings, folder=Path(name), timings=Path(name, "timings.csv"))
        return parts_of(set_up(job), updates)


def parts_of(training: Training, updates: int) -> Parts:
    """Return the parts of an update of a training; the lines are those of its loop."""
    clock, job = Clock(), training.job
    first = training.state.step + 1
    incoming = batches(training.crops, training.share, first - 1, first + updates + WARM_UP)
    for step in range(first, first + updates + WARM_UP):
        with clock.measuring("whole"):
            with clock.measuring("data"):
                batch = next(incoming)
            for optimizer in training.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            draws, progress = draws_at(training, step), progress_at(training, step, False)
            with autocast(training.fabric.device, training.precision):
                moved = batch.to(training.fabric.device, job.image_range)
                with clock.measuring("forward"):
                    terms = training.module(moved, draws, progress)
            with clock.measuring("backward"):
                training.fabric.backward(terms["total"])
            mean_terms(training.fabric, [terms])
            with clock.measuring("update of weights"):
                update_networks(training, 1.0)
        _restorer_alone(training, moved, clock)
    incoming.close()

    found = {part: clock.milliseconds(part) for part in clock.seconds}
    parts = {name: found[name] for name in ("data", "update of weights")}
    for way in ("forward", "backward"):
        parts[f"restorer {way}"] = found[f"restorer {way}"]
        parts[f"denoiser and loss, {way}"] = found[way] - found[f"restorer {way}"]
    parts["rest"] = found["whole"] - sum(parts.values())
    return {**parts, "whole": found["whole"], "floor": _floor(training, moved)}


def _restorer_alone(training: Training, batch: Batch, clock: Clock) -> None:
    """Measure the restorer's passes on the images that the method gives it."""
    restorer, adapts = training.method.restorer, len(training.optimizers) > 1
    images = torch.cat([batch.synthetic, batch.real]) if adapts else batch.synthetic
    with autocast(training.fabric.device, training.precision), clock.measuring("restorer forward"):
        restored = restorer(images)
    gradient = torch.ones_like(restored)
    with clock.measuring("restorer backward"):
        restored.backward(gradient)
    restorer.zero_grad(set_to_none=True)


def _floor(training: Training, batch: Batch) -> float:
    """Return milliseconds of an update's multiplications at the machine's own rate."""
    step = training.state.step + 1
    draws, progress = draws_at(training, step), progress_at(training, step, False)
    with FlopCounterMode(display=False) as counter:
        training.module(batch, draws, progress)["total"].backward()
    rate = own_rate(training.fabric.device, training.precision, large=False)
    return float(1000 * counter.get_total_flops() / rate)


def show(found: dict[tuple[str, int], Parts]) -> None:
    """Print a row for each part, a column for each method and number of threads."""
    print(f"{'milliseconds':30}" + "".join(f"{m}, {t} thread(s)".rjust(26) for m, t in found))
    for part in next(iter(found.values())):
        print(f"{part:30}" + "".join(f"{parts[part]:26.1f}" for parts in found.values()))
    for threads in {threads for _, threads in found}:
        ratio = found["noise_space", threads]["whole"] / found["vanilla", threads]["whole"]
        print(f"noise_space / vanilla, {threads} thread(s): {ratio:.1f}")


def main() -> None:
    """Measure every method with one and two threads, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="denoise")
    parser.add_argument("--updates", type=int, default=40)
    given = parser.parse_args()
    columns = [(method, threads) for threads in (1, 2) for method in METHODS]
    show({key: in_own_process(measure, given.task, *key, given.updates) for key in columns})


if __name__ == "__main__":
    main()
