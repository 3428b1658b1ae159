"""What is kept of a variation: finished results alone, and all of them. On a graph of two files."""

import fcntl
import subprocess
from pathlib import Path

import pytest

from pipeline.commands import vary
from pipeline.runtime.errors import UserError
from pipeline.workflow.one_snakemake import RUNNING

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
    Path("params.yaml").write_text("a: 1")
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm start"):
        subprocess.run(command.split(), check=True)
    monkeypatch.setattr(vary, "compose", lambda overrides: Path("params.yaml").write_text("a: 2"))
    return monkeypatch


def replace_snakemake(patch: pytest.MonkeyPatch, *instead: str) -> None:
    def status(*command: str) -> int:
        words = instead if command[0] == "snakemake" else command
        return subprocess.run(words).returncode

    patch.setattr(vary, "_status", status)


def saved() -> str:
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], capture_output=True, text=True)
    return listed.stdout.strip()


def test_what_is_not_finished_is_not_saved(schedule: pytest.MonkeyPatch) -> None:
    replace_snakemake(schedule, "true")  # as 'snakemake -n'
    with pytest.raises(UserError, match="not finished, so not saved"):
        vary.vary("x", [], [])
    assert saved() == ""


def test_settings_that_a_run_uses_are_left_alone(schedule: pytest.MonkeyPatch) -> None:
    replace_snakemake(schedule, "false")
    RUNNING.parent.mkdir(parents=True)
    with RUNNING.open("w") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        running.write("7 on here\nplan")
        running.flush()
        with pytest.raises(UserError, match="Snakemake runs here as process 7 on here, and its"):
            vary.vary("x", [], [])
        assert Path("params.yaml").read_text() == "a: 1"
    assert vary.vary("x", [], []) == 1, "what is left of an ended one is no reason"
    assert Path("params.yaml").read_text() == "a: 2"


def test_what_ran_with_changed_settings_is_not_saved(schedule: pytest.MonkeyPatch) -> None:
    """DVC finds nothing out of date: the last job to start has read them."""
    replace_snakemake(schedule, "sh", "-c", "dvc repro --quiet && echo 'a: 3' > params.yaml")
    with pytest.raises(UserError, match=r"params\.yaml changed meanwhile, so 'x' is not saved"):
        vary.vary("x", [], [])
    assert saved() == ""


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
