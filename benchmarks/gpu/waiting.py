"""How long a training waits for its data, and whether it is the same after a stop or on two cards.

All of it runs ``pipeline.training.loop.train`` itself, in processes of its own, on a store of
photographs from the scikit-image wheel.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.crop_reading import SIDE, photograph
from benchmarks.gpu.setup import Findings, Row, Setup
from benchmarks.steps import SIZES
from pipeline.config.degradations import GaussianNoise
from pipeline.config.methods import NoiseSpaceSettings
from pipeline.config.running import Train
from pipeline.config.tasks import SyntheticDomain
from pipeline.images.store import Record, write_store
from pipeline.runtime.csv_files import read_csv
from pipeline.runtime.paths import MODEL_FILE
from pipeline.training.job import Job

WORKERS = {"paper": (0, 4, 12), "tiny": (0, 2)}
IMAGES = {"paper": 32, "tiny": 2}
BATCH = {"paper": 24, "tiny": 2}
STEPS = {"paper": 40, "tiny": 4}
STOPPED = {"paper": (8, 5), "tiny": (4, 3)}
"""Last step of a training, and the one at which it is stopped."""


def measure_waiting(setup: Setup, before: Findings) -> Iterator[Row]:
    """Yield for numbers of loader processes the time of an update and the share of waiting."""
    for workers in WORKERS[setup.size]:
        job = _job(setup, f"{workers} workers", STEPS[setup.size], workers=workers)
        in_own_process(_train, job, None, seconds=setup.left())
        last = read_csv(job.timings)[-1]  # the first interval warms up
        yield {
            "workers": workers,
            "ms an update": 1000 * float(last["seconds_per_step"]),
            "share of it waiting for data": float(last["waiting_share"]),
        }


def measure_repeating(setup: Setup, before: Findings) -> Iterator[Row]:
    """Yield whether a stopped training ends with the bytes of an unbroken one, and so on."""
    last, stop = STOPPED[setup.size]
    for precision in ("fp32", "bf16"):
        weights = {}
        for name, stops in (("unbroken", None), ("again", None), ("stopped", stop)):
            job = _job(setup, f"{precision} {name}", last, precision=precision)
            in_own_process(_train, job, stops, seconds=setup.left())
            if stops is not None:
                in_own_process(_train, job, None, seconds=setup.left())
            weights[name] = (job.folder / MODEL_FILE).read_bytes()
        for name in ("again", "stopped"):
            same = weights[name] == weights["unbroken"]
            yield {"training": f"{precision}, {name}", "same bytes as unbroken": "yes" if same
                   else "no", "failed": not same}  # fmt: skip


def in_own_process(work: Callable[..., Any], *given: Any, seconds: float) -> Any:
    """Call in a process of its own, at most so long; an error there is one here.

    Raises:
        RuntimeError: the work failed or took too long.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(work, given, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(max(seconds, 1)):
            raise RuntimeError(f"{work.__name__}: not done in {seconds:.0f} s")
        error, result = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{work.__name__}: ended with {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if error:
        raise RuntimeError(error)
    return result


def _send(work: Callable[..., Any], given: tuple[Any, ...], pipe: Any) -> None:
    try:
        pipe.send(("", work(*given)))
    except SystemExit as stopped:
        pipe.send(("", stopped.code))
    except BaseException as error:
        traceback.print_exc()
        pipe.send((f"{type(error).__name__}: {error}", None))


def _train(job: Job, stop_at: int | None) -> None:
    """Train; with ``stop_at`` a signal arrives at that step, as a scheduler's does."""
    from pipeline.training.log import TrainingDisplay
    from pipeline.training.loop import train

    os.environ["PIPELINE_CHECKPOINTS"] = str(job.folder.parent / "checkpoints")
    shown = TrainingDisplay.step_done

    def step_done(self: TrainingDisplay, step: int, *rest: Any) -> None:
        shown(self, step, *rest)
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(TrainingDisplay, "step_done", step_done):
        train(job)


def _job(setup: Setup, name: str, last_step: int, **changes: Any) -> Job:
    size, scale = SIZES[setup.size], setup.size
    images = setup.folder / "images"
    if not images.exists():
        _write_images(images, IMAGES[scale], size.patch)
    method: NoiseSpaceSettings = replace(size.method, start="scratch")
    train = replace(_settings(BATCH[scale], size.patch, last_step), **changes)
    noise = GaussianNoise(kind="gaussian_noise", sigma_255=(0.0, 75.0))
    folder = setup.folder / name.replace(" ", "_")
    return Job(
        task_name="benchmark",
        method_name="noise_space",
        seed=0,
        synthetic=SyntheticDomain(degradation=noise, draw="anew", copies=1),
        image_range=(0.0, 1.0),
        learning_rate_factor=1.0,
        method=method,
        restorer=size.restorer,
        train=train,
        images=images,
        start_from=None,
        last_step=last_step,
        keeps="model",
        folder=folder,
        timings=folder.with_suffix(".csv"),
    )


def _settings(batch: int, patch: int, steps: int) -> Train:
    return Train(
        steps=steps, pretrain_steps=0, batch=batch, accumulate=1, devices=1, nodes=1, patch=patch,
        initialization="kaiming", learning_rate=1e-4, learning_rate_decay="none",
        adam_betas=(0.9, 0.999), clip_norm=1.0, average_decay=0.9999, precision="auto",
        compile=False, gradient_checkpointing=False, draws_on="device", threads=2, workers=0,
        log_every_steps=max(1, steps // 2), validate_every_steps=max(1, steps // 2) * 2,
        checkpoint_every_steps=10**6, tensorboard=False,
    )  # fmt: skip


def _write_images(folder: Path, count: int, patch: int) -> None:
    def record(number: int, side: int, **roles: Any) -> Record:
        return Record(f"p{number}", f"p{number}", "benchmark", side, side, **roles)

    pixels = [photograph(number) for number in range(count)]
    whole = [record(n, SIDE, clean=lambda p=p: p) for n, p in enumerate(pixels)]
    write_store(folder / "synthetic.h5", whole)
    write_store(folder / "unpaired.h5", [])
    real = [record(n, SIDE, degraded=lambda p=p: p) for n, p in enumerate(pixels)]
    write_store(folder / "real.h5", real)
    cut = pixels[0][:patch, :patch]
    crop = Record("real", "real", "real", patch, patch, lambda: cut, lambda: cut)
    write_store(folder / "validation.h5", [crop])
