"""The training log: one row of averages per interval, and the progress that people see."""

import csv
import io
import time
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

Row = dict[str, float]
SECONDS_BETWEEN_LINES = 30


@dataclass
class TrainingLog:
    """Rows written so far and the sums of the interval that is under way."""

    rows: list[Row] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the loss terms of one step."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        self.count += 1

    def close_interval(self, step: int, images_seen: int, learning_rate: float) -> Row:
        """Append and return a row: counters, learning rate, and the mean of each term."""
        means = {name: total / self.count for name, total in self.sums.items()}
        row = {"step": step, "images_seen": images_seen, "learning_rate": learning_rate, **means}
        self.rows.append(row)
        self.sums, self.count = {}, 0
        return row

    def to_csv(self) -> str:
        """Return all rows as CSV; a column that a row lacks is empty."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


class ProgressDisplay:
    """A bar with time left on a terminal; a line now and then where output goes to a file."""

    def __init__(self, title: str, step: int, last_step: int) -> None:
        self.title, self.first_step, self.last_step = title, step, last_step
        self.shown_loss = ""
        self.console = Console(stderr=True)
        self.started = self.last_line = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(title, total=last_step, completed=step, loss="")

    def __enter__(self) -> "ProgressDisplay":
        self.bar.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.bar.stop()

    def update(self, step: int, loss: float | None) -> None:
        """Show that a step is done."""
        if loss is not None:
            self.shown_loss = f"loss {loss:.4f}"
        self.bar.update(self.task, completed=step, loss=self.shown_loss)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            left = (now - self.started) / (step - self.first_step) * (self.last_step - step)
            self.console.print(
                f"{self.title}: step {step} of {self.last_step}, {left:.0f} s left", soft_wrap=True
            )


def require_finite(terms: dict[str, Tensor], step: int) -> str | None:
    """Return what is wrong with the loss terms of a step, or None where all are finite."""
    for name, value in terms.items():
        if not torch.isfinite(value):
            return f"step {step}: the loss term {name!r} is {value.item()}"
    return None
