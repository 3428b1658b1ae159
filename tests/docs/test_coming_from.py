"""docs/coming_from.md: what it calls ours is ours."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.describe import keys
from pipeline.config.methods import NoiseSpaceSettings, ReleasedSettings
from pipeline.config.running import Evaluate, Report, Resources, Train
from pipeline.config.sources import FolderSource
from pipeline.config.tasks import Task

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "coming_from.md").read_text().splitlines()
    if line.startswith("|") and not line.startswith("| ---")
]
CLASSES: dict[str, Any] = {
    "train": Train, "evaluate": Evaluate, "report": Report, "resources": Resources,
    "tasks.<task>": Task, "sources.folder": FolderSource,
    "methods.noise_space": NoiseSpaceSettings, "methods.released": ReleasedSettings,
}  # fmt: skip
SECTIONS = ("train.", "evaluate.", "resources.", "tasks.", "methods.", "sources.")
OURS = {
    word.partition("=")[0]
    for row in ROWS
    for word in re.findall(r"`(?:-S )?([^`]+)`", row[1])
    if word.removeprefix("-S ").startswith(SECTIONS)
}


def test_keys_are_found() -> None:
    assert len(OURS) > 20


@pytest.mark.parametrize("key", sorted(OURS))
def test_a_key_that_is_named_exists(key: str) -> None:
    known = {f"{section}.{k.name}" for section, cls in CLASSES.items() for k in keys(cls)}
    key = key.replace("<task>", "<name>") if key.startswith("methods.released") else key
    assert any(one == key or one.startswith(f"{key}.") for one in known), key
