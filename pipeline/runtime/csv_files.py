"""Tables as CSV: one writer and one reader, so that all files have the same form."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a header line and a line for each row; None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def csv_of_mappings(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows that need not have the same columns; a column that a row lacks is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text(columns, ([row.get(name) for name in columns] for row in rows))


def parse_csv(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV text by the names of its first line."""
    return list(csv.DictReader(io.StringIO(text)))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file that a stage writes.

    Raises:
        UserError: the file is missing.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; 'dvc repro' or 'dvc checkout' makes it")
    with path.open(newline="", encoding="utf-8") as file:
        return parse_csv(file.read())
