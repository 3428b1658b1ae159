"""The training log: one row of averages per interval, and the progress that people see."""

import csv
import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.runtime.errors import UserError

Row = dict[str, float]
SECONDS_BETWEEN_LINES = 30


@dataclass
class TrainingLog:
    """Rows written so far and the sums of the interval that is under way."""

    rows: list[Row] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, terms: Row) -> None:
        """Add the loss terms of one step."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            # each term its own count: an interval may begin in pretraining, which has fewer terms
            self.counts[name] = self.counts.get(name, 0) + 1

    def close_interval(self, step: int, images_seen: int, learning_rate: float) -> None:
        """Append a row: counters, learning rate, and the mean of each term."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        row = {"step": step, "images_seen": images_seen, "learning_rate": learning_rate, **means}
        self.rows.append(row)
        self.sums, self.counts = {}, {}

    def to_csv(self) -> str:
        """Return all rows as CSV; a column that a row lacks is empty."""
        return _to_csv(self.rows)


class Stopwatch:
    """Seconds a step, and the share of them spent waiting for data, of each logged interval.

    They differ from run to run, so they are kept apart from the log, which does not.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._begin()

    def go_on(self, path: Path, step: int) -> None:
        """Take over the rows up to a step that this training wrote before it was stopped."""
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
            self.rows = [{**row, "step": int(row["step"])} for row in rows if row["step"] <= step]

    def _begin(self) -> None:
        self._started, self._waited, self._steps = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within the block as waiting for data."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def step_done(self) -> None:
        """Count a step."""
        self._steps += 1

    def close_interval(self, step: int) -> None:
        """Append a row: the step, seconds a step, and the share of waiting, 0 to 1."""
        seconds = time.perf_counter() - self._started
        self.rows.append(
            {
                "step": step,
                "seconds_per_step": round(seconds / self._steps, 4),
                "waiting_share": round(self._waited / seconds, 4),
            }
        )
        self._begin()

    def to_csv(self) -> str:
        """Return all rows as CSV."""
        return _to_csv(self.rows)


def _to_csv(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class ProgressDisplay:
    """A bar with time left on a terminal; a line now and then where output goes to a file."""

    def __init__(self, title: str, last_step: int, shown: bool = True) -> None:
        self.title, self.last_step = title, last_step
        self.console = Console(stderr=True, soft_wrap=True, quiet=not shown)
        self.started = self.last_line = time.monotonic()
        self.steps_done = 0
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=self.console,
            disable=not (shown and self.console.is_terminal),
        )
        self.task = self.bar.add_task(title, total=last_step, loss="")

    def __enter__(self) -> "ProgressDisplay":
        self.bar.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(f"{self.title}: {text}")

    def update(self, step: int, log: TrainingLog, stopwatch: Stopwatch) -> None:
        """Show that a step is done, the loss and the share of waiting of the newest rows."""
        self.steps_done += 1
        loss = f"loss {log.rows[-1]['total']:.4f}" if log.rows else ""
        if stopwatch.rows:
            loss += f", {stopwatch.rows[-1]['waiting_share']:.0%} of the time waiting for data"
        self.bar.update(self.task, completed=step, loss=loss)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            left = (now - self.started) / self.steps_done * (self.last_step - step)
            self.say(f"step {step} of {self.last_step}, {left:.0f} s left, {loss}")


def require_finite(terms: Row, step: int, checkpoint: Path) -> None:
    """Raise UserError, naming step, term and last good checkpoint, unless all terms are finite."""
    for name, value in terms.items():
        if not math.isfinite(value):
            saved = f"last good checkpoint: {checkpoint}" if checkpoint.is_file() else "none saved"
            raise UserError(
                f"step {step}: the loss term {name!r} is {value} ({saved});"
                " lower train.learning_rate or the method's weight"
            )
