"""Long lists worked through in order: each item once, a bounded part of them at a time."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.runtime import streaming
from pipeline.runtime.progress import ProgressBars
from pipeline.runtime.streaming import Ahead, Remade, Room, mapped


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as made:
        yield made


def test_results_come_in_order_and_few_wait(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MOST_WAITING", 5)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    found = []
    for result in mapped(pool, slow, items()):
        found.append(result)
        assert len(taken) - len(found) < 5
    assert found == [number * number for number in range(40)]
    assert list(mapped(pool, slow, [])) == []


def test_what_waits_is_dropped_after_an_error(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MOST_WAITING", 20)
    called: list[int] = []

    def fail(number: int) -> int:
        called.append(number)
        if number == 2:
            raise ValueError("two")
        time.sleep(0.01)
        return number

    with pytest.raises(ValueError, match="two"):
        list(mapped(pool, fail, range(100)))
    assert len(called) < 20


class Making:
    """Makes numbers, and counts those that are made and not asked for yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: list[int] = []
        self.started = self.asked = self.most = 0
        self.threads: set[int] = set()

    def job(self, number: int, size: int) -> tuple[int, int, Callable[[], int]]:
        def make() -> int:
            with self.lock:
                self.made.append(number)
                self.threads.add(threading.get_ident())
            time.sleep(0.001)
            return number * 10

        self.started += 1
        self.most = max(self.most, self.started - self.asked)
        return number, size, make


@pytest.mark.parametrize(("limit", "most_waiting", "waiting"), [(40, 512, 4), (1, 512, 1),
                                                                (10**9, 7, 7)])  # fmt: skip
def test_few_images_are_made_ahead(
    limit: int,
    most_waiting: int,
    waiting: int,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By their bytes or, however small they are, by their number; one may always be made."""
    monkeypatch.setattr(streaming, "AHEAD_BYTES", limit)
    monkeypatch.setattr(streaming, "MOST_WAITING", most_waiting)
    making = Making()
    with ProgressBars("title", "images") as progress:
        ahead = Ahead((making.job(n, 10) for n in range(30)), 30, pool, progress, "images")
        for number in range(30):
            for _ in range(2):  # the last one again, as crops of one image are
                assert ahead.get(number) == number * 10
            making.asked += 1
        ahead.close()
    assert sorted(making.made) == list(range(30)), "each once"
    assert making.most <= waiting + 2, "and the next, of which the size is looked at"
    if waiting > 1:
        assert len(making.threads) > 1


def test_remade_items_are_made_for_each_walk() -> None:
    walks: list[int] = []

    def make() -> Iterator[str]:
        walks.append(1)
        yield from "abc"

    items = Remade(3, make)
    assert len(items) == 3 and not walks
    assert list(items) == list(items) == ["a", "b", "c"]
    assert len(walks) == 2
    assert (items[1], items[-1], items[1:]) == ("b", "c", ["b", "c"])
    with pytest.raises(IndexError):
        items[3]


def test_threads_share_memory(pool: ThreadPoolExecutor) -> None:
    """Sizes of 4 and 6 go together into 10; 25 goes alone."""
    room, lock = Room(10), threading.Lock()
    inside: list[int] = []
    seen: list[tuple[int, ...]] = []

    def work(size: int) -> int:
        with room.taken(size):
            with lock:
                inside.append(size)
                seen.append(tuple(inside))
            time.sleep(0.005)
            with lock:
                inside.remove(size)
        if size == 6:
            raise ValueError("an error gives it back as well")
        return size

    sizes = [4, 6, 25, 4, 4, 4, 25, 6, 4] * 3
    futures = [pool.submit(work, size) for size in sizes]
    assert [future.exception() is None for future in futures] == [size != 6 for size in sizes]
    assert all(sum(together) <= 10 or together == (25,) for together in seen)
    assert any(len(together) == 2 for together in seen)
