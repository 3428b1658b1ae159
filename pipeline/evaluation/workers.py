"""Score images in processes of their own, while the next ones are restored."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager

from pipeline.evaluation.metrics import Score, score
from pipeline.images.pixels import Image, Pixels, as_float
from pipeline.workflow.stage import end_with_parent

Submit = Callable[[Image, Pixels, str], "Future[Score]"]


@contextmanager
def scoring(processes: int) -> Iterator[Submit]:
    """Give a function that takes restored and clean image and protocol, and promises their score.

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
        yield lambda restored, clean, protocol: pool.submit(_score, restored, clean, protocol)


def _start() -> None:
    """Nothing: the process is there."""


def _score(restored: Image, clean: Pixels, protocol: str) -> Score:
    return score(restored, as_float(clean), protocol)


def _at_once(restored: Image, clean: Pixels, protocol: str) -> "Future[Score]":
    promise: Future[Score] = Future()
    try:
        promise.set_result(_score(restored, clean, protocol))
    except Exception as error:
        promise.set_exception(error)  # raised where the score is asked for, as from a process
    return promise
