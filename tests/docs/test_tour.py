"""docs/tour.ipynb runs from its first cell to its last, and is small."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.helpers.workspace import environment

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
CHECKED = """
print("WHERE", os.getcwd())
print("TERMS", *(name for name in ("positive_error", "negative_error") if log[name][-1] > 0))
print("SHAPE", restored.shape == camera.shape, bool((restored != camera).any()))
"""
"""What the test asks at the end, in the notebook's own names."""


def test_it_is_a_valid_notebook_without_outputs() -> None:
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in CELLS)
    assert NOTEBOOK.stat().st_size < 200_000


def test_its_links_lead_somewhere() -> None:
    texts = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown"]
    for target in re.findall(r"\]\(([^)]+)\)", "\n".join(texts)):
        assert (NOTEBOOK.parent / target).exists(), target


@pytest.mark.graph
def test_it_runs_and_leaves_the_checkout_as_it_was(tmp_path: Path) -> None:
    """As a notebook program does it: one cell after the other, in one process."""
    before = (ROOT / "params.yaml").read_bytes()
    script = tmp_path / "tour.py"
    script.write_text("\n\n".join([*CODE, CHECKED]))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT / "docs",
        env={**environment(), "MPLBACKEND": "Agg", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(rf"^WHERE {re.escape(str(tmp_path))}/tour-", done.stdout, re.MULTILINE)
    assert "TERMS positive_error negative_error" in done.stdout
    assert "SHAPE True True" in done.stdout
    assert (ROOT / "params.yaml").read_bytes() == before
