"""What is kept of a variation: finished results alone, and all of them. On a graph of two files."""

import subprocess
from pathlib import Path

import pytest

from pipeline import vary
from pipeline.errors import UserError

GRAPH = """
stages:
  score:
    cmd:
      - mkdir -p reports/metrics
      - cp in reports/metrics/new.json
      - cp in reports/summary.json
    deps: [in]
    outs:
      - reports/summary.json: {cache: false}
    metrics:
      - reports/metrics/new.json: {cache: false}
"""


@pytest.fixture
def schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A project of one stage; ``{"snakemake": command}`` stands for Snakemake."""
    monkeypatch.chdir(tmp_path)
    for person in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{person}_NAME", "test")
        monkeypatch.setenv(f"{person}_EMAIL", "test@localhost")
    Path("dvc.yaml").write_text(GRAPH)
    Path("in").write_text("{}")
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm start"):
        subprocess.run(command.split(), check=True)
    monkeypatch.setattr(vary, "compose", lambda overrides: None)
    return monkeypatch


def replace_snakemake(patch: pytest.MonkeyPatch, *instead: str) -> None:
    def status(*command: str) -> int:
        words = instead if command[0] == "snakemake" else command
        return subprocess.run(words).returncode

    patch.setattr(vary, "_status", status)


def test_what_is_not_finished_is_not_saved(schedule: pytest.MonkeyPatch) -> None:
    replace_snakemake(schedule, "true")  # as 'snakemake -n'
    with pytest.raises(UserError, match="not finished, so not saved"):
        vary.vary("x", [], [])
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], capture_output=True, text=True)
    assert listed.stdout.strip() == ""


def test_new_scores_are_saved_too(schedule: pytest.MonkeyPatch) -> None:
    replace_snakemake(schedule, "dvc", "repro", "--quiet")
    assert vary.vary("x", [], []) == 0
    refs = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/exps"], capture_output=True, text=True
    ).stdout.split()
    (kept,) = (ref for ref in refs if ref.endswith("/x"))
    tree = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", kept], capture_output=True, text=True
    ).stdout.split()
    assert {"reports/metrics/new.json", "reports/summary.json"} <= set(tree)
