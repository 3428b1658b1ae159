"""Score images in processes of their own, while the next ones are restored."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, Protocol, TypeVar

from pipeline.evaluation.metrics import Score, score
from pipeline.images.pixels import Image, Pixels, as_float
from pipeline.workflow.stage import end_with_parent

P = ParamSpec("P")
T = TypeVar("T")


class Submit(Protocol):
    """Takes a function and what it is given, and promises what it returns."""

    def __call__(
        self, function: Callable[P, T], /, *given: P.args, **named: P.kwargs
    ) -> "Future[T]":
        """Return the promise."""
        ...


@contextmanager
def scoring(processes: int) -> Iterator[Submit]:
    """Give a function that has others called elsewhere.

    The scores are the same with any number of processes; 0 computes them at once in this one.
    """
    if processes == 0:
        yield _at_once
        return
    # not forked: this process may hold threads and a GPU
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, end_with_parent) as pool:
        for _ in range(processes):
            pool.submit(_start)  # they import while the first images are restored
        yield pool.submit


def score_of(restored: Image, clean: Pixels, protocol: str) -> Score:
    """Return the score of a restored image (height, width, 3) in [0, 1] against a stored one."""
    return score(restored, as_float(clean), protocol)


def _start() -> None:
    """Nothing: the process is there."""


def _at_once(function: Callable[P, T], /, *given: P.args, **named: P.kwargs) -> "Future[T]":
    promise: Future[T] = Future()
    try:
        promise.set_result(function(*given, **named))
    except Exception as error:
        promise.set_exception(error)  # raised where the score is asked for, as from a process
    return promise
