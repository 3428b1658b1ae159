"""Long lists of images worked through in threads and in order, a bounded part of them at a time."""

import contextlib
import itertools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, overload

from pipeline.runtime.progress import ProgressBars

AHEAD_BYTES = 256 * 2**20
"""Memory of the images that may wait to be packed."""
MOST_THREADS = 8
SECONDS_BETWEEN_LOOKS = 0.1
MOST_WAITING = 512
"""Calls that are handed out at a time: each takes some thousand bytes, however small its image."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def working_threads() -> int:
    """Return how many images to work on at a time: Pillow and NumPy let other threads run."""
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)


def mapped(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Yield the results in order, as ``pool.map`` does, without a future for every item at once."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= MOST_WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def in_background(items: Iterator[Item], waiting: int) -> Iterator[Item]:
    """Yield the items, made in a thread that is up to ``waiting`` of them ahead.

    An exception is raised where its item would have been; a walk that is given up ends the thread.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(waiting)
    given_up = threading.Event()

    def put(made: tuple[bool, Any]) -> None:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(made, timeout=SECONDS_BETWEEN_LOOKS)
                return

    def make() -> None:
        try:
            for item in items:
                put((True, item))
                if given_up.is_set():
                    return
            put((False, None))
        except BaseException as error:  # raised again by the one who waits
            put((False, error))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            is_item, found = ready.get()
            if is_item:
                yield found
            elif found is not None:
                raise found
            else:
                return
    finally:
        given_up.set()
        thread.join()


class Room:
    """Memory that threads share: who would exceed ``limit`` bytes waits, or takes it alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._taken = limit, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Take ``size`` bytes while the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._limit)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


class Ahead(Generic[Result]):
    """Makes images in threads, a bounded number of bytes ahead of the one that is asked for."""

    def __init__(
        self,
        order: Iterable[tuple[object, int, Callable[[], Result]]],
        count: int,
        pool: ThreadPoolExecutor,
        progress: ProgressBars,
        title: str,
    ) -> None:
        """Take the images in the order in which they will be asked for, ``count`` of them.

        Of each: what it is asked for by, the bytes that making it takes, what makes it.
        """
        self._order = iter(order)
        self._pool, self._progress = pool, progress
        self._task = progress.add(title, count)
        self._total, self._done = count, 0
        self._waiting: deque[tuple[object, int, Future[Result]]] = deque()
        self._waiting_bytes = 0
        self._current: tuple[object, Result] | None = None
        self._next = next(self._order, None)

    def get(self, key: object) -> Result:
        """Return an image, the last one again or the next in order."""
        while self._current is None or self._current[0] != key:
            self._current = None  # frees its memory before the next one is waited for
            self._look_ahead()
            found, size, future = self._waiting.popleft()
            self._waiting_bytes -= size
            self._current = (found, future.result())
            self._done += 1
            self._progress.reach(self._task, self._done, self._total, fresh=1)
        return self._current[1]

    def close(self) -> None:
        """Drop what was not asked for."""
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def _look_ahead(self) -> None:
        while self._next is not None:
            key, size, make = self._next
            full = len(self._waiting) >= MOST_WAITING or self._waiting_bytes + size > AHEAD_BYTES
            if self._waiting and full:
                return
            self._waiting.append((key, size, self._pool.submit(make)))
            self._waiting_bytes += size
            self._next = next(self._order, None)


class Remade(Sequence[Item]):
    """Items that are made anew each time they are walked through, so that none stays in memory.

    A store walks through its records a few times; what loads each of hundreds of thousands of
    images would take gigabytes.
    """

    def __init__(self, count: int, make: Callable[[], Iterable[Item]]) -> None:
        """Take their number, and what makes all of them in order."""
        self._count, self._make = count, make

    def __len__(self) -> int:
        """Return the number of items."""
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """Make all items."""
        return iter(self._make())

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Item]: ...

    def __getitem__(self, place: int | slice) -> Item | Sequence[Item]:
        """Make one item, or some; all before it are made too."""
        if isinstance(place, slice):
            return list(self)[place]
        return next(itertools.islice(self, range(self._count)[place], None))
