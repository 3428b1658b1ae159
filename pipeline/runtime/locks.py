"""Locks on files: one process holds each, until it closes the file or ends."""

import fcntl
import os
import socket
from pathlib import Path

from pipeline.runtime.errors import UserError


def lock(descriptor: int, path: Path, waits: bool = False) -> bool:
    """Lock an open file; return False where another process holds it, unless that is waited for.

    Raises:
        UserError: the file system cannot lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:  # ENOLCK, ENOSYS, ENOTSUP
        raise UserError(
            f"{path}: cannot be locked ({error.strerror}); use a file system with flock, mounted so"
            " that all nodes see the locks (Lustre: -o flock)"
        ) from None
    return True


def this_process() -> str:
    """Return number, host and Slurm job of this process, to be told to those that wait for it."""
    job = os.environ.get("SLURM_JOB_ID")
    place = f"{os.getpid()} on {socket.gethostname()}"
    return f"{place} (Slurm job {job})" if job else place
