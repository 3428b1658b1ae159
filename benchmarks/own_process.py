"""Time and memory of a function in a process of its own."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """What a call took; ``before_mib`` is memory before it began, libraries included."""

    seconds: float
    before_mib: float
    peak_mib: float


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of a module in a fresh process and return its result."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def cost_of(function: Callable[..., Any], *arguments: Any) -> Cost:
    """Call a function of a module in a fresh process and return what it cost."""
    return in_own_process(_measured, function, arguments)


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Cost:
    before, begun = peak_mib(), time.perf_counter()
    function(*arguments)
    return Cost(time.perf_counter() - begun, before, peak_mib())


def peak_mib() -> float:
    """Return the most memory that this process has held, in MiB."""
    # not getrusage: there a child begins with the peak of its parent
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
