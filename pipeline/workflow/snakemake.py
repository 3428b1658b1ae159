"""What the Snakefile needs: the plan, which DVC judges, and marks of what is up to date."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.workflow.graph import FOLDER, FORCED_VARIABLE, Stage, is_computed, planned, read_graph
from pipeline.workflow.mend_lock import mend
from pipeline.workflow.one_snakemake import RUNNING, take_turn, tell_plan
from pipeline.workflow.project import (
    GRAPH_VARIABLE,
    repository,
    require_plain_folders,
    require_project,
)


def plan() -> list[Stage]:
    """Return the graph; make the marks in ``.snakemake/dvc`` say what is up to date for DVC.

    Beside a Snakemake at work: return its graph, and leave the marks to it.

    Raises:
        UserError: this is no clone, cannot be written to, or DVC cannot judge it.
    """
    require_project()
    require_plain_folders()
    others = take_turn(RUNNING)
    if others is not None:
        os.environ[GRAPH_VARIABLE] = str(others)
        return planned()
    mend()
    with repository(_wait_for_lock=True) as repo:
        stages = read_graph(repo)
        renew_marks(stages, repo.status())
    text = json.dumps([asdict(stage) for stage in stages])
    path = FOLDER / "graphs" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    write_text(path, text)
    os.environ[GRAPH_VARIABLE] = str(path)
    tell_plan(path)
    return stages


def force(rules: Iterable[str], every: bool) -> None:
    """Let jobs run rules that are up to date: Snakemake was started with --forcerun or the like.

    Raises:
        UserError: there is no such rule.
    """
    rules, known = set(rules), {stage.rule for stage in planned()}
    if unknown := rules - known - {"all"}:
        raise UserError(f"--forcerun: found {', '.join(sorted(unknown))}, expected names of rules;"
                        " 'snakemake --list-rules' has all")  # fmt: skip
    os.environ[FORCED_VARIABLE] = " ".join(known if every else rules)


def not_of_its_notes(record: logging.LogRecord) -> bool:
    """Return False for what Snakemake says of notes that it lacks: DVC made that, and judges it."""
    text = record.getMessage()
    return "missing provenance/metadata" not in text and "Missing metadata for file" not in text


def renew_marks(stages: list[Stage], changed: Iterable[str]) -> None:
    """Mark as done what is neither changed nor depends on what is; unmark the rest.

    A job's note outlives that, if all it tells is still so: then only the commit is missing.
    """
    stale = set(changed)
    while more := {s.name for s in stages if stale.intersection(s.needs)} - stale:
        stale |= more
    for stage in stages:
        done, computed = Path(stage.done), Path(stage.computed)
        for mark in (done, computed):
            mark.parent.mkdir(parents=True, exist_ok=True)
        if stage.name not in stale:
            done.touch()
            computed.touch()
            continue
        done.unlink(missing_ok=True)
        if not is_computed(stage):
            computed.unlink(missing_ok=True)
