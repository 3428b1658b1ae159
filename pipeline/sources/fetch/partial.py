"""Half-fetched files: whose bytes they hold, how many there are, and how they are forgotten."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.files import write_text


@dataclass(frozen=True)
class Note:
    """What is known of a partial file; written beside it."""

    url: str
    validator: str | None
    total: int | None


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0


def fetched_bytes(partial: Path) -> int:
    """Return how much of a file is here, at the address of which most is."""
    return max((size_of(path) for path in _beside(partial) if path.suffix != ".json"), default=0)


def forget(partial: Path) -> None:
    """Remove whatever any address has left of a file that is now in its place."""
    for path in _beside(partial):
        path.unlink()


def _beside(partial: Path) -> list[Path]:
    """Return the partial file, its note, and gdown's: people keep files of their own beside."""
    folder = partial.parent
    files = folder.iterdir() if folder.exists() else ()
    ours = re.compile(
        rf"{re.escape(partial.name)}(\.drive-[0-9a-f]{{8}}(\w{{8}}\.part)?)?(\.json)?"
    )
    return [path for path in files if ours.fullmatch(path.name)]


def _note_file(partial: Path) -> Path:
    """Return where it is noted whose bytes a partial file holds."""
    return partial.with_name(f"{partial.name}.json")


def read_note(partial: Path) -> Note | None:
    """Return what is noted of a partial file; None if that is nothing."""
    try:
        values: dict[str, Any] = json.loads(_note_file(partial).read_text(encoding="utf-8"))
        return Note(**values)
    except (OSError, ValueError, TypeError):
        return None


def write_note(partial: Path, note: Note) -> None:
    """Note what is known of a partial file."""
    write_text(_note_file(partial), json.dumps(vars(note)))
