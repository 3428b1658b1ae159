"""GPUs of a machine, divided among the processes of a project that run side by side."""

import os
import sys
import time
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.runtime.locks import lock

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"


def writes_first_weights_only(stage: str, pretrain_steps: int) -> bool:
    """Return whether a stage, by its name, is a pretraining without updates."""
    return stage.startswith("pretrain") and pretrain_steps == 0


def gpus_of(stage: str, of_training: int, pretrain_steps: int) -> int:
    """Return how many GPUs a stage uses, by its name, where a training has ``of_training``.

    Trainings are one process for each GPU, an evaluation is a single process.
    """
    if writes_first_weights_only(stage, pretrain_steps):
        return 0
    return min(of_training, 1) if stage.startswith("evaluate") else of_training


def take_gpus(count: int, folder: Path, patience_s: float = 0) -> None:
    """Reserve GPUs of this machine until this process ends, and let it see no others.

    Nobody else tells it which to use, so that all would use the first.

    Args:
        count: how many; all of the machine's where it has fewer.
        folder: where all processes that are to share lock a file for each of theirs.
        patience_s: how long to wait for others to end.

    Raises:
        UserError: too few are free.
    """
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    given = os.environ.get(VISIBLE_VARIABLE, ",".join(path.name[6:] for path in devices))
    names = [name for name in given.split(",") if name]
    wanted = min(count, len(names))
    if not wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_s
    told = False
    while len(taken := _take(names, wanted, folder)) < wanted:
        for descriptor in taken.values():
            os.close(descriptor)
        if time.monotonic() >= deadline:
            raise UserError(
                f"{wanted} GPUs wanted, {len(taken)} of {len(names)} free; start snakemake with"
                f" --resources gpu={len(names)} or less"
            )
        if not told:
            print(
                f"waiting for {wanted} of {len(names)} GPUs: {len(taken)} free now, others of this"
                " project use the rest",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        told = True
        time.sleep(1)
    for descriptor in taken.values():
        os.set_inheritable(descriptor, True)  # held by what this process becomes, until its end
    os.environ[VISIBLE_VARIABLE] = ",".join(taken)


def _take(names: list[str], wanted: int, folder: Path) -> dict[str, int]:
    taken: dict[str, int] = {}
    for name in names:
        if len(taken) == wanted:
            break
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT)
        if lock(descriptor, folder / name):
            taken[name] = descriptor
        else:
            os.close(descriptor)
    return taken
