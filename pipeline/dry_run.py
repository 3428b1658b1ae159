"""Is every training of a configuration possible, and what would it take?

Usage: python -m pipeline.dry_run [override ...]      (Hydra's override grammar)

Composes the configuration without touching params.yaml and runs two updates of every kind of
training on stand-in images, through the training loop itself. So a wrong value shows in a minute,
not after a day.
"""

import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.compose import compose
from pipeline.config import Params, read_params
from pipeline.config.learning import Released, TrainedMethod, Vanilla
from pipeline.disk import summary
from pipeline.errors import UserError, mistakes_told

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.training.loop import Job

UPDATES = 2
"""The first one warms up."""
FEW_IMAGES = (1, 2)
"""Images of a share that a processor is measured with; a full share is extrapolated."""
SCRATCH = Vanilla(adaptation="none", start="scratch")


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


@dataclass(frozen=True)
class Row:
    """One kind of training: its method, number of updates, networks and cost of a share.

    ``tasks``: how many tasks train it.
    """

    label: str
    tasks: int
    updates: int
    networks: Networks
    cost: Cost

    def seconds(self, params: Params) -> float:
        """Return what one training takes."""
        return self.cost.seconds * params.train.accumulate * self.updates

    def all_seconds(self, params: Params) -> float:
        """Return what the trainings of all its tasks and seeds take."""
        return self.seconds(params) * self.tasks * len(params.seeds)


def dry_run(overrides: list[str]) -> None:
    """Measure every training of the configuration and print what it would take.

    Raises:
        UserError: the configuration is wrong, a released weight file is missing or another, or a
            training fails.
    """
    from rich.console import Console

    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compose(overrides, folder / "params.yaml")
        params = read_params(folder / "params.yaml")
        _check_released(params)
        console.print(_overview(params))
        write_stand_ins(folder / "images", params.train.patch)
        tables = [
            [_row(params, tasks, *training, folder, console) for training in trainings(params)]
            for tasks in params.restorers().values()
        ]
    for rows in tables:
        console.print(_table(params, rows))
    for line in [*_conclusions(params, [row for rows in tables for row in rows]), *summary(params)]:
        console.print(line)


def _row(
    params: Params,
    tasks: list[str],
    label: str,
    method: TrainedMethod,
    updates: int,
    folder: Path,
    console: "Console",
) -> Row:
    """Measure a training of tasks of one restorer: they differ in images and rates, not in cost."""
    console.print(f"measuring {label} ...")
    networks, cost = _measure(params, tasks[0], method, folder)
    return Row(label, len(tasks), updates, networks, cost)


def trainings(params: Params) -> list[tuple[str, TrainedMethod, int]]:
    """Return name, method and number of updates of every training of a task and seed."""
    found: list[tuple[str, TrainedMethod, int]] = []
    if params.train.pretrain_steps:
        found.append(("(pretraining)", SCRATCH, params.train.pretrain_steps))
    for label, method in params.methods.items():
        if not isinstance(method, Released):
            shared = params.train.pretrain_steps if method.start == "pretrained" else 0
            found.append((label, method, params.train.steps - shared))
    return found


def write_stand_ins(folder: Path, patch: int) -> None:
    """Write stores of random images, as large as a patch, for both domains."""
    import numpy as np

    from pipeline.store import Record, write_store

    pixels = np.random.default_rng(0).integers(0, 256, (patch, patch, 3), dtype=np.uint8)

    def record(**roles: Any) -> Record:
        return Record("stand-in", "stand-in", "stand-in", patch, patch, **roles)

    write_store(folder / "synthetic.h5", [record(clean=lambda: pixels, degraded=lambda: pixels)])
    write_store(folder / "unpaired.h5", [])
    write_store(folder / "real.h5", [record(degraded=lambda: pixels)])
    write_store(folder / "truth.h5", [record(clean=lambda: pixels)])


def extrapolate(few: tuple[int, int], costs: tuple[Cost, Cost], images: int) -> Cost:
    """Return the cost of a share of ``images``: a straight line through two measured ones."""
    share = (images - few[0]) / (few[1] - few[0])
    first, second = costs
    return Cost(
        seconds=first.seconds + (second.seconds - first.seconds) * share,
        memory=first.memory + (second.memory - first.memory) * share,
    )


def _check_released(params: Params) -> None:
    from pipeline.models.released import read_released

    for method in params.methods.values():
        if isinstance(method, Released):
            for task in params.tasks:
                read_released(method.weights[task])


def _measure(
    params: Params, task: str, method: TrainedMethod, folder: Path
) -> tuple[Networks, Cost]:
    from pipeline.batches import Share

    job = _job(params, task, method, folder)
    images = Share(params.train).images
    if _gpus() or images <= FEW_IMAGES[1]:
        networks, cost = _in_own_process(_train, _with_share(job, images))
        return networks, cost
    (networks, first), (_, second) = (
        _in_own_process(_train, _with_share(job, few)) for few in FEW_IMAGES
    )
    return networks, extrapolate(FEW_IMAGES, (first, second), images)


def _job(params: Params, task: str, method: TrainedMethod, folder: Path) -> "Job":
    from pipeline.training.loop import Job

    settings = params.tasks[task]
    return Job(
        title="dry run",
        task_name=task,
        method_name="dry run",
        synthetic=settings.synthetic,
        image_range=settings.image_range,
        learning_rate_factor=settings.learning_rate_factor,
        method=method,
        restorer=settings.restorer or params.restorer,
        train=params.train,
        seed=0,
        images=folder / "images",
        start_from=None,
        last_step=UPDATES,
        keeps="state",
        folder=folder / "result",
        timings=folder / "timings.csv",
    )


def _with_share(job: "Job", images: int) -> "Job":
    """Return the job of one process that takes one share of so many images an update."""
    changes: dict[str, Any] = {"batch": images, "accumulate": 1, "devices": 1, "nodes": 1}
    changes |= {"workers": 0, "log_every_steps": 1, "checkpoint_every_steps": 10**9}
    changes |= {"steps": max(job.train.steps, UPDATES + 1)}
    return replace(job, train=replace(job.train, **changes))


def _in_own_process(work: Callable[["Job"], tuple[Networks, Cost]], job: "Job") -> Any:
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
            f"a training of {job.method.adaptation} was ended with status {process.exitcode}"
            " (-9: out of memory); set a larger train.accumulate or a smaller train.batch"
        ) from None
    process.join()
    if isinstance(result, UserError):
        raise result
    return result


def _send(work: Callable[["Job"], tuple[Networks, Cost]], job: "Job", pipe: Any) -> None:
    try:
        result: tuple[Networks, Cost] | UserError = work(job)
    except UserError as error:
        result = error
    except Exception as error:
        # whatever torch says of memory or shapes belongs into one line
        result = UserError(f"{job.method.adaptation}: {' '.join(str(error).split())[:500]}")
    pipe.send(result)


def _train(job: "Job") -> tuple[Networks, Cost]:
    import torch

    from pipeline.report.collect import read_log
    from pipeline.training.loop import train

    os.environ["PIPELINE_CHECKPOINTS"] = str(job.folder.parent / "checkpoints")
    train(job)
    seconds = float(read_log(job.timings)["seconds_per_step"][-1])
    on_gpu = torch.cuda.is_available()
    cost = Cost(seconds, torch.cuda.max_memory_allocated() if on_gpu else _peak_memory())
    return _count(job), cost  # counted last: it needs memory of its own


def _peak_memory() -> int:
    """Return the largest main memory of this process so far, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise UserError("/proc/self/status: no VmHWM; the dry run needs Linux")


def _count(job: "Job") -> Networks:
    from pipeline.adaptation import build_adaptation
    from pipeline.models.build import build_restorer, giga_macs, parameter_count

    restorer = build_restorer(job.restorer)
    adaptation = build_adaptation(restorer, job.method)
    own = parameter_count(restorer)
    return Networks(own, parameter_count(adaptation) - own, giga_macs(restorer))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _overview(params: Params) -> str:
    train = params.train
    processes = train.devices * train.nodes
    share = train.batch // (processes * train.accumulate)
    kinds = len(trainings(params))
    runs = len(params.tasks) * len(params.seeds)
    return (
        f"Preset {params.preset}: the configuration is valid. {len(params.tasks)} tasks x"
        f" {len(params.seeds)} seeds x {kinds} = {runs * kinds} trainings. Batch of {train.batch}:"
        f" {processes} processes x {train.accumulate} shares x {share} images."
    )


def _table(params: Params, rows: list[Row]) -> Any:
    from rich.table import Table

    where = "a GPU" if _gpus() else "this processor, estimated from shares of 1 and 2 images"
    networks = rows[0].networks
    table = Table(
        title=f"Restorer: {networks.restorer:,} parameters, {networks.giga_macs:.2f} GMACs at"
        f" 128x128. One process on {where}:",
        title_justify="left",
    )
    table.add_column("Training")
    for name in ("Thrown away", "Memory", "Update", "Updates", "Training", "All"):
        table.add_column(name, justify="right")
    for row in rows:
        one = row.seconds(params)
        table.add_row(
            row.label,
            f"{row.networks.extra:,}",
            f"{row.cost.memory / 2**30:.1f} GiB",
            f"{row.cost.seconds * params.train.accumulate:.3g} s",
            f"{row.updates:,}",
            _duration(one),
            _duration(row.all_seconds(params)),
        )
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 200 * 3600 else f"{seconds / 86400:.0f} days"


def _conclusions(params: Params, rows: list[Row]) -> list[str]:
    train = params.train
    needed = max(row.cost.memory for row in rows)
    seconds = sum(row.all_seconds(params) for row in rows)
    lines = [
        "Thrown away: parameters needed in training only. Every kind of training ran two updates.",
        f"All trainings one after the other, at this machine's rate: {_duration(seconds)}"
        " (estimated; not: reading data, checkpoints, talk between processes).",
    ]
    gpus = _gpus()
    if gpus:
        import torch

        available = torch.cuda.get_device_properties(0).total_memory
        where = f"GPU memory here is {available / 2**30:.0f} GiB"
    else:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        needed *= train.devices
        where = f"{train.devices} processes on this machine of {available / 2**30:.0f} GiB"
        if needed > params.resources.mem_mb * 2**20:
            lines.append(
                f"Set resources.mem_mb to at least {math.ceil(needed / 2**20):,}: schedulers are"
                f" asked for {params.resources.mem_mb:,} (on GPUs most of it lies there instead)."
            )
    verdict = "fits" if needed < available else "DOES NOT FIT; set a larger train.accumulate"
    lines.append(f"Largest memory {needed / 2**30:.1f} GiB, {where}: {verdict}.")
    if train.devices > max(gpus, 1):
        lines.append(
            f"train.devices is {train.devices}, this machine has {gpus} GPUs: here it would"
            + (" be refused." if gpus else f" start {train.devices} processes on the processor.")
        )
    return lines


if __name__ == "__main__":
    with mistakes_told():
        dry_run(sys.argv[1:])
