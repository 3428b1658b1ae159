"""A training of several processes ends when one of them is lost, in one line and within seconds."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import Popen

from pipeline.runtime.errors import UserError
from pipeline.training.fabric import Fabric
from pipeline.workflow.stage import end_with_parent

LOOK_EVERY_S = 0.5
WAIT_S = 10.0
"""So long a process that cannot reach another waits to be ended by the leader, who says why."""
WORDS = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")
"""One of them stands in the error of a process whose partner is gone."""


def end_with_leader() -> None:
    """End this process, started by the leader of its node, when that one is gone."""
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        end_with_parent()


def watch(fabric: Fabric) -> None:
    """End this process and those that it started when one of them ends by an error.

    Lightning does so too, but without a word and after five seconds, when the leader has long
    printed what the broken connection made of it.
    """
    started = getattr(fabric._strategy.launcher, "procs", ())
    if started:
        threading.Thread(target=_look, args=(started,), daemon=True).start()


def _look(started: Sequence["Popen[bytes]"]) -> None:
    while True:
        ended = [process.poll() for process in started]
        for rank, status in enumerate(ended, start=1):
            if status:
                _end(started, rank, status)
        if all(status == 0 for status in ended):
            return
        time.sleep(LOOK_EVERY_S)


def _end(started: Sequence["Popen[bytes]"], rank: int, status: int) -> None:
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    print(
        f"error: process {rank + 1} of {len(started) + 1} on this node was ended by {how}, so all"
        " end; the same command goes on from the last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    for process in started:
        process.kill()
    os._exit(os.EX_TEMPFAIL if status < 0 else status)


@contextmanager
def lost_processes() -> Iterator[None]:
    """Turn the error of a process whose partner is gone into one line.

    Raises:
        UserError: another process cannot be reached, and nobody has ended this one meanwhile.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in WORDS):
            raise
        time.sleep(WAIT_S)
        said = " ".join(str(error).split())[:200]
        raise UserError(
            "another process of this training is gone; the same command goes on from the last"
            f" checkpoint ({said})"
        ) from None
