"""The result as one JSON and one Markdown file, written anew after every row."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu.setup import Findings, Row, Section, Setup


class Result:
    """All that was found so far."""

    def __init__(self, folder: Path, facts: dict[str, Any], sections: list[Section]) -> None:
        self.folder, self.facts, self.sections = folder, facts, sections
        self.rows: Findings = {}
        self.notes: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, title: str, row: Row) -> None:
        """Keep a row of a section."""
        self.rows.setdefault(title, []).append(row)
        self.write()

    def note(self, title: str, text: str) -> None:
        """Keep a remark on a section: why it ended early."""
        self.notes[title] = text
        self.write()

    @property
    def failed(self) -> list[str]:
        """Titles of sections of which a check failed or that ended with an error."""
        checks = [t for t, rows in self.rows.items() if any(row.get("failed") for row in rows)]
        errors = [title for title, text in self.notes.items() if text.startswith("error")]
        return sorted({*checks, *errors})

    def write(self) -> None:
        """Write both files, each whole or not at all."""
        values = {**self.facts, "rows": self.rows, "notes": self.notes}
        self._replace("gpu.json", json.dumps(values, indent=1) + "\n")
        self._replace("gpu.md", self.markdown())

    def markdown(self) -> str:
        """Return the tables, in the order of the sections."""
        parts = [f"# {self.facts['card']}\n"]
        parts += [f"- {name}: {value}" for name, value in self.facts.items() if name != "card"]
        for section in self.sections:
            rows, note = self.rows.get(section.title, []), self.notes.get(section.title)
            if rows or note:
                parts += [f"\n## {section.title}\n", section.about]
                parts += ["", *table(rows)] if rows else []
                parts += ["", note] if note else []
        return "\n".join(parts) + "\n"

    def _replace(self, name: str, text: str) -> None:
        # not the project's own: that needs more than the standard library
        partial = self.folder / f"{name}.partial"
        partial.write_text(text)
        partial.replace(self.folder / name)


def table(rows: list[Row]) -> list[str]:
    """Return the lines of a Markdown table; a value that a row lacks is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "failed"))
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    for row in rows:
        cells = [_cell(row.get(name)) for name in columns]
        lines.append(f"| {' | '.join(cells)} |" + (" **FAILED**" if row.get("failed") else ""))
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def facts(setup: Setup, minutes: float) -> dict[str, Any]:
    """Return card, date, driver and versions."""
    import torch

    from pipeline.device import describe_device

    cuda = setup.device == "cuda"
    driver = "none"
    if cuda:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            asked = subprocess.run(query, capture_output=True, text=True)
            driver = asked.stdout.partition("\n")[0].strip() or "unknown"
        except FileNotFoundError:
            driver = "unknown: no nvidia-smi"
    return {
        "card": describe_device(torch.device(setup.device)),
        "cards": torch.cuda.device_count(),
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "driver": driver,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "size": setup.size,
        "minutes": minutes,
    }
