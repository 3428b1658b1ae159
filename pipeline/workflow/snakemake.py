"""What the Snakefile needs: the plan, which DVC judges, and marks of what is up to date."""

import contextlib
import hashlib
import io
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

RUN_NOTHING_HERE = (
    "dryrun", "touch", "directory", "snakefile", "unlock", "dag", "rulegraph", "filegraph", "d3dag",
    "report", "summary", "detailed_summary", "lint", "list_rules", "list_target_rules",
    "list_changes", "list_input_changes", "list_params_changes", "list_untracked",
    "print_compilation", "generate_unit_tests", "containerize", "export_cwl", "archive",
    "cleanup_metadata", "cleanup_shadow", "drop_metadata", "delete_all_output",
    "delete_temp_output", "list_conda_envs", "conda_create_envs_only", "conda_cleanup_envs",
    "container_cleanup_images", "draft_notebook", "edit_notebook",
)  # fmt: skip
"""Options with which Snakemake does something else than to run this folder's graph, as its parser
names them."""

NO_TOUCH = "--touch: DVC judges what is up to date: dvc commit --force STAGE"


def require_run(options: list[str]) -> None:
    """Refuse options of Snakemake that do not run the graph of this folder; profiles may say them.

    Raises:
        UserError: names the option; or Snakemake does not know one.
    """
    from snakemake.cli import parse_args
    from snakemake.exceptions import CliException

    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            parser, found = parse_args(options)
    except CliException as error:
        raise UserError(f"options of Snakemake: {' '.join(str(error).split())}") from None
    except SystemExit as end:
        if not end.code:  # --help, --version
            raise
        reason = told.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"options of Snakemake: {' '.join(reason.split())};"
                        " 'snakemake --help' has all") from None  # fmt: skip
    for name in RUN_NOTHING_HERE:
        if getattr(found, name) != parser.get_default(name):
            if name == "touch":
                raise UserError(NO_TOUCH)
            option = f"--{name.replace('_', '-')}".replace("dryrun", "dry-run")
            raise UserError(
                f"found {option} among Snakemake's options, with which it does not run this"
                " folder's graph; for that: python -m pipeline compose [override ...], then"
                f" snakemake {option}"
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
