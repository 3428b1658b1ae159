"""Run three updates of a training on stand-in images, and note what they take."""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.methods import TrainedMethod
from pipeline.config.params import Params
from pipeline.runtime.errors import UserError, in_one_line
from pipeline.training.job import Job

if TYPE_CHECKING:
    from pipeline.device import Precision

UPDATES = 3
"""The last one is timed: the first warms up, and the second is the first beside Adam's moments."""
FEW_IMAGES = (1, 2)
"""Images of a share that a processor is measured with; a full share is extrapolated."""


@dataclass(frozen=True)
class Cost:
    """What one update takes of one process: seconds, and bytes of its or its GPU's memory."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Networks:
    """Numbers of values of the restorer and of what is thrown away, and the restorer's GMACs."""

    restorer: int
    extra: int
    giga_macs: float


def write_stand_ins(folder: Path, patch: int) -> None:
    """Write stores of random images, as large as a patch, for both domains."""
    import numpy as np

    from pipeline.images.store import Record, write_store

    pixels = np.random.default_rng(0).integers(0, 256, (patch, patch, 3), dtype=np.uint8)

    def record(**roles: Any) -> Record:
        return Record("stand-in", "stand-in", "stand-in", patch, patch, **roles)

    write_store(folder / "synthetic.h5", [record(clean=lambda: pixels, degraded=lambda: pixels)])
    write_store(folder / "unpaired.h5", [])
    write_store(folder / "real.h5", [record(degraded=lambda: pixels)])
    write_store(folder / "truth.h5", [record(clean=lambda: pixels)])
    write_store(folder / "validation.h5", [])


def measure(
    params: Params, task: str, method: TrainedMethod, folder: Path
) -> tuple[Networks, Cost]:
    """Return the networks of a training and what an update of a share takes of one process.

    Args:
        params: the configuration.
        task: a task that has this training.
        method: its method.
        folder: with the stand-in images in ``images``; what the training writes goes here too.

    Raises:
        UserError: the training fails, or is ended from outside.
    """
    from pipeline.datasets.batches import Share

    job = _job(params, task, method, folder)
    images = Share(params.train).images
    if gpus() or images <= FEW_IMAGES[1]:
        networks, cost = _in_own_process(_train, _with_share(job, images))
        return networks, cost
    (networks, first), (_, second) = (
        _in_own_process(_train, _with_share(job, few)) for few in FEW_IMAGES
    )
    return networks, extrapolate(FEW_IMAGES, (first, second), images)


@dataclass(frozen=True)
class Counted:
    """Memory of an update on a GPU by the images of a share: bytes, counted, a straight line."""

    fixed: float
    an_image: float

    def at(self, images: int) -> float:
        """Return the memory of a share."""
        return self.fixed + self.an_image * images


def count(params: Params, task: str, method: TrainedMethod, folder: Path) -> dict[bool, Counted]:
    """Return what a GPU would need, without and with gradient checkpointing.

    Raises:
        UserError: the count fails.
    """
    job = _job(params, task, method, folder)
    lines = {}
    for checkpointed in (False, True):
        train = replace(job.train, gradient_checkpointing=checkpointed)
        one, two = _in_own_process(_count_on_a_gpu, replace(job, train=train))
        lines[checkpointed] = Counted(fixed=2 * one - two, an_image=two - one)
    return lines


def _count_on_a_gpu(job: Job) -> tuple[int, int]:
    from pipeline.dry_run.counting import as_on_a_gpu, counted_peak

    as_on_a_gpu()
    precision: Precision = "bf16" if job.train.precision in ("auto", "bf16") else "fp32"
    one, two = (counted_peak(job, few, precision) for few in FEW_IMAGES)
    return one, two


def extrapolate(few: tuple[int, int], costs: tuple[Cost, Cost], images: int) -> Cost:
    """Return the cost of a share of ``images``: a straight line through two measured ones."""
    share = (images - few[0]) / (few[1] - few[0])
    first, second = costs
    return Cost(
        seconds=first.seconds + (second.seconds - first.seconds) * share,
        memory=first.memory + (second.memory - first.memory) * share,
    )


def _job(params: Params, task: str, method: TrainedMethod, folder: Path) -> Job:
    return replace(
        Job.pretraining(params, task, seed=0),
        method_name="dry run",
        method=method,
        images=folder / "images",
        last_step=UPDATES,
        folder=folder / "result",
        timings=folder / "timings.csv",
    )


def _with_share(job: Job, images: int) -> Job:
    """Return the job of one process that takes one share of so many images an update."""
    changes: dict[str, Any] = {"batch": images, "accumulate": 1, "devices": 1, "nodes": 1}
    changes |= {"workers": 0, "log_every_steps": 1, "validate_every_steps": 10**9}
    changes |= {"checkpoint_every_steps": 10**9, "tensorboard": False}
    changes |= {"steps": max(job.train.steps, UPDATES + 1)}
    return replace(job, train=replace(job.train, **changes))


def _in_own_process(work: Callable[[Job], Any], job: Job) -> Any:
    """Call in a process of its own: its memory is its own, and an error does not end this one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(work, job, theirs))
    process.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        process.join()
        raise UserError(
            f"a training of {job.method.kind} was ended with status {process.exitcode}"
            " (-9: out of memory); set a larger train.accumulate or a smaller train.batch"
        ) from None
    process.join()
    if isinstance(result, UserError):
        raise result
    return result


def _send(work: Callable[[Job], Any], job: Job, pipe: Any) -> None:
    try:
        result = work(job)
    except UserError as error:
        result = error
    except Exception as error:
        # whatever torch says of memory or shapes belongs into one line
        reason = in_one_line(error) or " ".join(str(error).split())[:500]
        result = UserError(f"{job.method.kind}: {reason}")
    pipe.send(result)


def _train(job: Job) -> tuple[Networks, Cost]:
    import torch

    from pipeline.report.collect import read_log
    from pipeline.training.loop import train

    os.environ["PIPELINE_CHECKPOINTS"] = str(job.folder.parent / "checkpoints")
    train(job)
    seconds = float(read_log(job.timings)["seconds_per_step"][-1])
    on_gpu = torch.cuda.is_available()
    cost = Cost(seconds, torch.cuda.max_memory_allocated() if on_gpu else _peak_memory())
    return networks_of(job), cost


def _peak_memory() -> int:
    """Return the largest main memory of this process so far, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise UserError("/proc/self/status: no VmHWM; the dry run needs Linux")


def networks_of(job: Job) -> Networks:
    """Return the sizes of the networks of a training."""
    from pipeline.dry_run.counting import sketch
    from pipeline.models.build import giga_macs, parameter_count

    method = sketch(job)
    own = parameter_count(method.restorer)
    return Networks(own, parameter_count(method) - own, giga_macs(method.restorer))


def gpus() -> int:
    """Return how many GPUs this machine has."""
    import torch

    return torch.cuda.device_count()
