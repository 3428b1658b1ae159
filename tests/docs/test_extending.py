"""docs/extending.md: what it says to write down runs as it stands there."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import preloaded
from tests.helpers.workspace import clone, stages_run

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text()
TABLE = "MethodSettings = (\n"


def listing(place: str) -> str:
    """Return the code that stands below the last mention of a file."""
    (code,) = re.findall(rf"`{re.escape(place)}`:\n\n```\w+\n(.*?)```", TEXT, re.DOTALL)
    return str(code)


def extend(folder: Path) -> None:
    """Put the method of the recipe into a copy of the package."""
    for place in ("pipeline/methods/smooth.py", "pipeline/conf/methods/smooth.yaml"):
        (folder / place).write_text(listing(place))
    table = folder / "pipeline" / "config" / "methods.py"
    before, after = table.read_text().split(TABLE)
    table.write_text(
        f"{before}{listing('pipeline/config/methods.py')}\n\n{TABLE}    SmoothSettings |{after}"
    )


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """A copy of the package with the method of the recipe."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=ignored)
    extend(tmp_path)
    return tmp_path


def test_a_method_is_one_file_its_settings_and_a_line(extended: Path) -> None:
    overrides = ["preset=tiny", "tasks=[denoise]", "methods=[vanilla,smooth]"]
    assert all(word in TEXT for word in overrides)
    done = subprocess.run(
        [preloaded.python(), "-m", "pipeline", "dry_run", *overrides],
        cwd=extended, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "measuring smooth ..." in done.stdout
    assert re.search(r"│ smooth +│ +0 │", done.stdout), done.stdout
    wrong = [
        preloaded.python(),
        "-m",
        "pipeline",
        "compose",
        *overrides,
        "methods.smooth.weight=-1",
    ]
    done = subprocess.run(wrong, cwd=extended, capture_output=True, text=True)
    assert "methods.smooth.weight: found -1" in done.stderr


@pytest.mark.graph
def test_it_goes_through_the_graph_to_the_report(three_tasks: Path, tmp_path: Path) -> None:
    """Alone, for the sake of time; that the bytes of others stay is tested with other methods."""
    workspace = clone(three_tasks, tmp_path / "extended")
    extend(workspace.folder)
    workspace.succeed(
        "python",
        "-m",
        "pipeline",
        "compose",
        "preset=tiny",
        "tasks=[denoise]",
        "methods=[smooth]",
    )
    output = workspace.succeed("dvc", "repro")
    assert {"train@denoise-smooth-0", "report"} < stages_run(output)
    reports = workspace.folder / "reports"
    rows = json.loads((reports / "summary.json").read_text())
    assert {row["method"] for row in rows} == {"degraded", "smooth"}
    assert "| smooth |" in (reports / "report.md").read_text()
