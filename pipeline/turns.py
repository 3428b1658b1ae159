"""One Snakemake at a time judges what is up to date; another beside it sees the plan of that one.

``snakemake -n`` plans as well: by renewing the marks it would take away those that a Snakemake at
work has just set, or has still to find.
"""

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import IO

_held: list[IO[str]] = []
_others: list[str] = []


def take_turn(path: Path) -> Path | None:
    """Lock a file until this process ends; or return the plan that the holder of the lock has told.

    Waits while the other is still planning.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _held:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            process, _, plan = file.read().partition(" ")
            file.close()
            if plan:
                _others.append(process)
                print(
                    f"Snakemake runs here as process {process}: its plan is shown", file=sys.stderr
                )
                return Path(plan)
            time.sleep(0.2)
            continue
        file.truncate(0)
        _held.append(file)
    return None


def tell_plan(plan: Path) -> None:
    """Let others see the plan of this process, which has the turn."""
    _held[0].write(f"{os.getpid()} {plan}")
    _held[0].flush()


def refusal() -> str | None:
    """Return why this process may not run jobs: the plan of another may not suit it."""
    if not _others:
        return None
    return (
        f"Snakemake runs here as process {_others[0]}: wait for it or stop it; 'snakemake -n' shows"
        " what it has left to do"
    )
