"""One Snakemake at a time judges what is up to date; another beside it sees the plan of that one.

``snakemake -n`` plans as well: by renewing the marks it would take away those that a Snakemake at
work has just set, or has still to find.
"""

import sys
import time
from pathlib import Path
from typing import IO

from pipeline.runtime.errors import UserError
from pipeline.runtime.locks import lock, this_process

RUNNING = Path(".snakemake/dvc/running")
"""The lock of the Snakemake that has the turn in a project."""

_held: list[IO[str]] = []
_others: list[str] = []


def take_turn(path: Path) -> Path | None:
    """Lock a file until this process ends; or return the plan that the holder of the lock has told.

    Waits while the other is still planning.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _held:
        file = path.open("a+", encoding="utf-8")
        if lock(file.fileno(), path):
            file.truncate(0)
            file.write(f"{this_process()}\n")
            file.flush()
            _held.append(file)
            break
        file.seek(0)
        process, _, plan = file.read().partition("\n")
        file.close()
        if plan:
            _others.append(process)
            print(f"Snakemake runs here as process {process}: its plan is shown", file=sys.stderr)
            return Path(plan)
        time.sleep(0.2)
    return None


def tell_plan(plan: Path) -> None:
    """Let others see the plan of this process, which has the turn."""
    _held[0].write(str(plan))
    _held[0].flush()


def require_nobody_runs(path: Path = RUNNING) -> None:
    """Raise UserError where a Snakemake has the turn: its jobs read the settings as they start."""
    if not path.is_file():
        return
    with path.open("a+", encoding="utf-8") as file:
        if lock(file.fileno(), path):
            file.truncate(0)  # else one that begins just now is told the plan of one that has ended
            return
        file.seek(0)
        process = file.readline().strip()
    raise UserError(
        f"Snakemake runs here as process {process}, and its jobs would take over other settings;"
        " wait for it or stop it"
    )


def refusal() -> str | None:
    """Return why this process may not run jobs: the plan of another may not suit it."""
    if not _others:
        return None
    return (
        f"Snakemake runs here as process {_others[0]}: wait for it or stop it; 'snakemake -n' shows"
        " what it has left to do"
    )
