"""Progress that people see: bars with rate and time left, or a line now and then in a file."""

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

SECONDS_BETWEEN_LINES = 30


class ProgressBars:
    """A bar for each task on a terminal; elsewhere one line about all of them, now and then.

    ``unit`` is ``bytes`` or a plural such as ``images``. Nothing is shown where ``shown`` is false.
    Any thread may report.
    """

    def __init__(self, title: str, unit: str, shown: bool = True) -> None:
        self.title, self.unit = title, unit
        self.console = Console(stderr=True, soft_wrap=True, quiet=not shown)
        self.started = self.last_line = time.monotonic()
        self.worked = 0.0
        self._lock = threading.Lock()
        amount: list[ProgressColumn] = [MofNCompleteColumn()]
        if unit == "bytes":
            amount = [DownloadColumn(), TransferSpeedColumn()]
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *amount,
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self.console,
            disable=not (shown and self.console.is_terminal),
        )

    def __enter__(self) -> "ProgressBars":
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def add(self, name: str, total: int | None) -> TaskID:
        """Begin a task; its total may become known later."""
        return self.bars.add_task(name, total=total, detail="")

    def reach(
        self, task: TaskID, done: float, total: float | None, fresh: float = 0, detail: str = ""
    ) -> None:
        """Report how far a task is; ``fresh`` of it was done just now and counts for the rate."""
        self.bars.update(task, completed=done, total=total, detail=detail)
        with self._lock:
            self.worked += fresh
            now = time.monotonic()
            if self.console.is_terminal or now - self.last_line < SECONDS_BETWEEN_LINES:
                return
            self.last_line = now
        line = self._line(now - self.started)
        self.say(f"{line}, {detail}" if detail else line)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(f"{self.title}: {text}", highlight=False, markup=False)

    def _line(self, seconds: float) -> str:
        done = sum(task.completed for task in self.bars.tasks)
        rate = self.worked / seconds
        totals = [task.total for task in self.bars.tasks]
        known = sum(total for total in totals if total is not None)
        text = f"{self._amount(done)} of {self._amount(known)}, {self._amount(rate)}/s"
        if None in totals:
            return text + ", and files of unknown size"
        return text + (f", {(known - done) / rate:.0f} s left" if rate else "")

    def _amount(self, number: float) -> str:
        return decimal(int(number)) if self.unit == "bytes" else f"{number:.0f} {self.unit}"
