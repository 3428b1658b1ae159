"""Show a training while it runs, or afterwards: each term's curve and its last values.

RUN is a run below data/models, such as denoise/noise_space-0, or the folder of any log.csv, such as
data/pretrained/denoise/0. Training adds a row to that file every train.log_every_steps updates. To
see it grow: watch -n 10 python -m pipeline watch RUN
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands import parser
from pipeline.runtime.csv_files import read_csv
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import LOG_FILE, MODELS

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 32
COUNTERS = ("step", "images_seen")
"""Columns that only count, so that a curve of them says nothing."""


def main(words: list[str]) -> int:
    """Print the table.

    Raises:
        UserError: there is no such log.
    """
    given = parser("watch", __doc__)
    given.add_argument("run", metavar="RUN")
    given.add_argument("--rows", type=int, default=4, metavar="N", help="values (%(default)s)")
    arguments = given.parse_args(words)
    path = _log_of(arguments.run)
    try:
        rows = read_csv(path)
        if rows:
            _print(path, rows, max(arguments.rows, 1))
    except (KeyError, TypeError, ValueError, csv.Error):
        raise UserError(
            f"{path}: found another file, expected a training's log: a column 'step', and numbers"
        ) from None
    if not rows:
        raise UserError(f"{path}: no row yet; the first comes after train.log_every_steps updates")
    return 0


def curve(values: Sequence[float], width: int = CURVE_WIDTH) -> str:
    """Return values as a line of blocks, lowest to highest; NaN leaves no block.

    More values than ``width`` are averaged in equal parts.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    count = min(width, len(known))
    parts = [known[i * len(known) // count : (i + 1) * len(known) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(BLOCKS[round((mean - low) / span * (len(BLOCKS) - 1))] for mean in means)


def _log_of(text: str) -> Path:
    for path in (MODELS / text / LOG_FILE, Path(text) / LOG_FILE, Path(text)):
        if path.is_file():
            return path
    runs = sorted(path.parent.relative_to(MODELS) for path in MODELS.glob(f"*/*/{LOG_FILE}"))
    known = ", ".join(run.as_posix() for run in runs) or "none yet"
    raise UserError(f"{text}: no {LOG_FILE}; expected a run below {MODELS} (found: {known})")


def _print(path: Path, rows: list[dict[str, str]], last: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{path}, {len(rows)} rows", title_justify="left")
    table.add_column("step")
    table.add_column("from the first row to the last", no_wrap=True)
    for row in rows[-last:]:
        table.add_column(row["step"], justify="right")
    for name in (name for name in rows[0] if name not in COUNTERS):
        values = [float(row[name]) if row[name] else math.nan for row in rows]
        table.add_row(name, curve(values), *(_shown(value) for value in values[-last:]))
    Console(soft_wrap=False).print(table)


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"
