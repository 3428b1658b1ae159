"""What every stage script shares: arguments, configuration, one-line errors, the cost record."""

import argparse
import ctypes
import inspect
import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.config.params import PARAMS_FILE, Params
from pipeline.config.read import read_params
from pipeline.runtime.checkpoints import forget_finished
from pipeline.runtime.errors import (
    INTERRUPTED_STATUS,
    USER_ERROR_STATUS,
    UserError,
    in_one_line,
)
from pipeline.runtime.files import write_text
from pipeline.runtime.messages import bear_any_terminal
from pipeline.runtime.paths import COSTS
from pipeline.workflow.gpus import gpus_of, take_gpus
from pipeline.workflow.project import require_plain_folders


def run(main: Callable[..., None]) -> None:
    """Call ``main(params, **arguments)`` as a command and exit.

    Every parameter of ``main`` after the first becomes a required option of the same name and
    type; its value must stand in params.yaml (``--task`` in ``tasks`` and so on). The exit status
    is 0 on success, 2 after a user's mistake, a full disk or too little memory, which are told in
    one line.
    """
    _end_with_dvc()
    bear_any_terminal()
    started = time.monotonic()
    arguments = _arguments(main)
    leads = _leads()
    origin = _origin()
    try:
        if "DVC_STAGE" in os.environ:
            require_plain_folders()
        if leads:
            forget_finished()
        params = read_params()
        _require_known(params, arguments)
        if "DVC_EXP_NAME" in os.environ and "seed" in arguments and leads:
            # of a queue several run at once; DVC_ROOT is the project that they were queued in
            folder = Path(os.environ["DVC_ROOT"], ".snakemake", "dvc", "gpus")
            gpus = gpus_of(_stage(), params.resources.gpu, params.train.pretrain_steps)
            take_gpus(gpus, folder, patience_s=math.inf)
        main(params, **arguments)
        if leads:
            _require_unchanged(origin)
            _write_cost(arguments, time.monotonic() - started)
    except (Exception, KeyboardInterrupt) as error:
        line = in_one_line(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        interrupted = isinstance(error, KeyboardInterrupt)
        sys.exit(INTERRUPTED_STATUS if interrupted else USER_ERROR_STATUS)


def _leads() -> bool:
    """Return whether this is the stage's only process, or the first of several as one."""
    started_by_srun = int(os.environ.get("SLURM_NTASKS", 1)) > 1
    return os.environ.get("SLURM_PROCID" if started_by_srun else "LOCAL_RANK", "0") == "0"


def _arguments(main: Callable[..., None]) -> dict[str, int | str]:
    module = sys.modules[main.__module__]
    parser = argparse.ArgumentParser(description=module.__doc__)
    for name, parameter in list(inspect.signature(main).parameters.items())[1:]:
        parser.add_argument(f"--{name}", type=parameter.annotation, required=True)
    return vars(parser.parse_args())


def _require_known(params: Params, arguments: dict[str, int | str]) -> None:
    for name, value in arguments.items():
        known = getattr(params, f"{name}s")
        if value not in known:
            names = ", ".join(str(item) for item in known)
            raise UserError(f"--{name}: found {value!r}, expected one of params.yaml's: {names}")


def _origin() -> dict[str, bytes]:
    """Return the code and the settings by file."""
    files = [PARAMS_FILE, *Path("pipeline").rglob("*.py"), *Path("stages").glob("*.py")]
    return {path.as_posix(): path.read_bytes() for path in files if path.is_file()}


def _require_unchanged(before: dict[str, bytes]) -> None:
    """Under DVC, refuse a result whose code or settings changed while it was made.

    DVC looks at them when a stage ends and would note the new ones as the result's origin.
    """
    name, after = os.environ.get("DVC_STAGE"), _origin()
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    if name is None or not changed:
        return
    from dvc.repo import Repo

    (stage,) = Repo().stage.collect(name)
    declared = [dep.def_path for dep in stage.deps if dep not in stage.params]
    found = [f for f in changed if any(f == dep or f.startswith(f"{dep}/") for dep in declared)]
    old, new = (OmegaConf.create(text[str(PARAMS_FILE)].decode()) for text in (before, after))
    keys = [key for dep in stage.params for key in dep.params]
    found += [k for k in keys if OmegaConf.select(old, k) != OmegaConf.select(new, k)]
    if found:
        raise UserError(
            f"{', '.join(sorted(found))} changed while {name} ran, and DVC would note the new"
            " content as its origin; run it again, or put the old content back and keep the"
            f" result with: dvc commit --force {name}"
        )


def _stage() -> str:
    return Path(sys.argv[0]).stem


def _write_cost(arguments: dict[str, int | str], wall_s: float) -> None:
    stage = _stage()
    label = "-".join(str(value) for value in arguments.values())
    peak_kib = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    record = {
        "stage": f"{stage}@{label}" if label else stage,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "wall_s": round(wall_s, 1),
        "peak_memory_mib": round(peak_kib / 1024),
        "peak_gpu_memory_mib": _peak_gpu_memory_mib(),
    }
    write_text(COSTS / f"{record['stage']}.json", json.dumps(record, indent=2) + "\n")


def _peak_gpu_memory_mib() -> int | None:
    """Return the most that tensors of this process held on its GPU; None where it used none."""
    torch: Any = sys.modules.get("torch")  # not imported for this alone
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated()) // 2**20


def end_with_parent() -> None:
    """End this process when the one that started it is killed."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _end_with_dvc() -> None:
    """Under DVC, end when DVC is killed: an orphan would go on writing beside its successor."""
    if "DVC_ROOT" not in os.environ or sys.platform != "linux":
        return
    end_with_parent()
    shell = os.getppid()
    if Path(f"/proc/{shell}/comm").read_text().rstrip().endswith("sh"):
        # bash gives its place to its command, Debian's sh stays between DVC and this process
        threading.Thread(target=_end_without_parent, args=(shell,), daemon=True).start()


def _end_without_parent(shell: int) -> None:
    dvc = _parent(shell)
    while _parent(shell) == dvc:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def _parent(process: int) -> int:
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
    return int(after_name.split()[1])
