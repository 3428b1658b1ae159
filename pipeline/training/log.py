"""The training log: one row of averages per interval, and the progress that people see."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.runtime.csv_files import csv_of_mappings, read_csv
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.runtime.paths import LOG_FILE, TENSORBOARD
from pipeline.runtime.progress import ProgressBars
from pipeline.training.job import Job

Row = dict[str, float]
SCORE = "psnr_"
"""Begins the name of a column of the validation; the domain follows."""


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

    def close_interval(
        self, step: int, images_seen: int, learning_rate: float, scores: Row
    ) -> None:
        """Append a row: counters, learning rate, the mean of each term, and scores if any."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        row = {"step": step, "images_seen": images_seen, "learning_rate": learning_rate, **means}
        row |= scores
        self.rows.append(row)
        self.sums, self.counts = {}, {}

    def to_csv(self) -> str:
        """Return all rows as CSV; a column that a row lacks is empty."""
        return csv_of_mappings(self.rows)


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
            rows = [{k: float(v) for k, v in row.items()} for row in read_csv(path)]
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
        return csv_of_mappings(self.rows)


class TrainingDisplay:
    """What people see of a training while it runs: progress, log and durations as files.

    The files change no result. TensorBoard's are written where ``train.tensorboard`` asks for them.
    """

    def __init__(self, job: Job, shown: bool) -> None:
        self.job, self.shown = job, shown
        self.stopwatch = Stopwatch()
        self.bars = ProgressBars(job.title, "updates", shown)
        self.task = self.bars.add(job.title, job.last_step)
        self.board: Any = None

    def __enter__(self) -> "TrainingDisplay":
        if self.job.train.tensorboard and self.shown:
            self.board = _tensorboard(self.job)
        self.bars.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self.bars.__exit__(*reason)
        if self.board is not None:
            self.board.close()

    def say(self, text: str) -> None:
        """Print a line."""
        self.bars.say(text)

    def go_on(self, step: int) -> None:
        """Take over what was written up to a step before the training was stopped."""
        self.stopwatch.go_on(self.job.timings, step)
        self.say(f"going on from step {step}")

    def step_done(self, step: int, log: TrainingLog, row_ends: bool) -> None:
        """Show that a step is done; at the end of a row of the log, write the files."""
        self.stopwatch.step_done()
        if row_ends:
            self.stopwatch.close_interval(step)
            if self.shown:
                write_text(self.job.folder / LOG_FILE, log.to_csv())
                write_text(self.job.timings, self.stopwatch.to_csv())
            if self.board is not None:
                for name, value in log.rows[-1].items():
                    self.board.add_scalar(name, value, step)
        self.bars.reach(self.task, step, self.job.last_step, fresh=1, detail=self._detail(log))

    def _detail(self, log: TrainingLog) -> str:
        if not log.rows:
            return ""
        parts = [f"loss {log.rows[-1]['total']:.4f}"]
        validated = next((row for row in reversed(log.rows) if has_scores(row)), {})
        parts += [
            f"{name.removeprefix(SCORE)} {value:.2f} dB"
            for name, value in validated.items()
            if name.startswith(SCORE)
        ]
        if self.stopwatch.rows:
            waiting = self.stopwatch.rows[-1]["waiting_share"]
            parts.append(f"{waiting:.0%} of the time waiting for data")
        return ", ".join(parts)


def has_scores(row: Row) -> bool:
    """Return whether a row of the log has the PSNR of the validation."""
    return any(name.startswith(SCORE) for name in row)


def _tensorboard(job: Job) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise UserError(
            f"train.tensorboard: true needs {error.name}; pip install '.[tensorboard]'"
        ) from None
    return SummaryWriter(TENSORBOARD / job.task_name / f"{job.method_name}-{job.seed}")


def require_finite(terms: Row, step: int, checkpoint: Path) -> None:
    """Raise UserError, naming step, term and last good checkpoint, unless all terms are finite."""
    for name, value in terms.items():
        if not math.isfinite(value):
            saved = f"last good checkpoint: {checkpoint}" if checkpoint.is_file() else "none saved"
            raise UserError(
                f"step {step}: the loss term {name!r} is {value} ({saved});"
                " lower train.learning_rate or the method's weight"
            )
