"""What Snakemake's jobs run.

On one node a job is ``dvc repro --single-item``. On several nodes DVC must not run inside jobs: it
takes a lock holder of another node for dead. There a job runs the stage's bare command and leaves
a note of what it read and wrote; a second job beside Snakemake commits the result to DVC if
nothing has changed since.

Usage: python -m pipeline.workflow.jobs {repro,compute,commit} STAGE
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.runtime.errors import UserError, user_errors_end
from pipeline.runtime.files import write_text
from pipeline.runtime.locks import lock, this_process
from pipeline.workflow.gpus import take_gpus
from pipeline.workflow.graph import (
    FOLDER,
    Stage,
    files_of,
    inputs_of,
    is_computed,
    is_forced,
    planned,
    read_stages,
)
from pipeline.workflow.stage import end_with_parent

PATIENCE_S = 60

"""How long network file systems keep what they know of a file, by default."""


def compute(stage: Stage) -> int:
    """Run a stage's command as DVC would, but without it; return the command's exit status.

    A Snakemake that was killed leaves its jobs on other nodes at work. The same job of the next one
    waits until they end, and has nothing to do where they finished.
    """
    path = FOLDER / "computing" / stage.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not lock(file.fileno(), path):
            file.seek(0)
            print(f"{stage.name}: process {file.read()} is at it; waiting for it", flush=True)
            lock(file.fileno(), path, waits=True)
        if is_computed(stage) and not is_forced(stage):
            return 0
        file.truncate(0)
        file.write(this_process())
        file.flush()
        return _execute(stage)


def _execute(stage: Stage) -> int:
    """Run it; signals are handed on, so that a training saves itself before the job ends."""
    inputs = inputs_of(stage)
    for out in map(Path, set(stage.outs) - set(stage.persisted)):
        if out.is_dir() and not out.is_symlink():
            shutil.rmtree(out)
        else:
            out.unlink(missing_ok=True)
        out.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"DVC_ROOT": str(Path.cwd()), "DVC_STAGE": stage.name}
    # not sh: Debian's stays between, and a signal from Slurm to all processes would end it, and
    # with it the command before that has saved itself
    process = subprocess.Popen(["bash", "-c", stage.cmd], env=environment)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda received, frame: process.send_signal(received))
    status = process.wait()
    if status == 0:
        note = {"inputs": inputs, "outputs": files_of(stage.outs)}
        write_text(Path(stage.computed), json.dumps(note))
    return status if status >= 0 else 128 - status


def commit(stage: Stage, patience_s: int) -> int:
    """Hand a job's outputs to DVC; return DVC's exit status.

    A shared file system may take ``patience_s`` seconds to show here what another node wrote.

    Raises:
        UserError: what the job read or wrote has changed, or its entry in dvc.yaml, so DVC would
            record a wrong origin.
    """
    if stage.definition not in [now.definition for now in read_stages()]:
        raise UserError(
            f"{stage.name}: dvc.yaml changed while its job ran; start snakemake again to have it"
            " computed anew"
        )
    deadline = time.monotonic() + patience_s
    while not (whole := is_computed(stage)) and time.monotonic() < deadline:
        time.sleep(1)
    if not whole:
        raise UserError(
            f"{stage.name}: code, settings, data or results changed while its job ran;"
            " start snakemake again to have it computed anew"
        )
    command = ["dvc", "--wait-for-lock", "commit", "--quiet", "--force", stage.name]
    return subprocess.run(command).returncode


def _run(action: str, name: str) -> int:
    end_with_parent()  # a Snakemake that was killed leaves no job behind to write beside the next
    (stage,) = (stage for stage in planned() if stage.name == name)
    if action == "repro":
        take_gpus(int(stage.resources.get("gpu", 0)), FOLDER / "gpus")
        # in front of the command: behind it DVC gives up after three seconds, and with it a day
        force = ["--force"] if is_forced(stage) else []
        os.execvp("dvc", ["dvc", "--wait-for-lock", "repro", "--single-item", *force, name])
    return compute(stage) if action == "compute" else commit(stage, PATIENCE_S)


if __name__ == "__main__":
    with user_errors_end():
        sys.exit(_run(*sys.argv[1:]))
