"""Run a variation through Snakemake and keep it as an experiment of DVC.

The same as ``dvc exp run -n NAME -S override ...``, for trainings side by side or on a cluster:
composes params.yaml, runs snakemake, then ``dvc exp save``. A run that was stopped goes on with the
same command.
"""

import re
import shutil
import subprocess

from pipeline.commands import parse_with_overrides, parser, program
from pipeline.config.compose import compose, require_same_preset
from pipeline.config.params import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.workflow.one_snakemake import require_nobody_runs
from pipeline.workflow.project import (
    repository,
    require_identity,
    require_plain_folders,
    require_project,
)
from pipeline.workflow.snakemake import require_run

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def vary(name: str, overrides: list[str], options: list[str]) -> int:
    """Run one variation; return the exit status of the command that failed, or 0.

    Raises:
        UserError: the name is taken or not allowed, an override is wrong, DVC could not save the
            result, an option of Snakemake runs nothing here, Snakemake runs here already or left
            something to do, or the settings changed meanwhile.
    """
    if "=" in name:
        raise UserError(
            f"found {name!r} where the name of the experiment is expected; give one first:"
            f" {program()} vary NAME {name}"
        )
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name an experiment: letters, digits, '-' and '_' can")
    require_project()
    require_plain_folders()
    require_identity()
    for needed in ("dvc", "snakemake"):
        if shutil.which(needed) is None:
            raise UserError(f"{needed}: not on PATH; first: source .venv/bin/activate")
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], capture_output=True, text=True)
    if listed.returncode:
        raise UserError(f"'dvc exp list' failed: {' '.join(listed.stderr.split())}")
    if name in listed.stdout.split():
        raise UserError(
            f"experiment {name!r} exists; choose another name or: dvc exp remove {name}"
        )
    require_run(options)
    require_nobody_runs()
    require_same_preset(overrides)
    compose(overrides)
    composed = PARAMS_FILE.read_bytes()
    return _status("snakemake", *options) or _save(name, composed)


def _save(name: str, composed: bytes) -> int:
    if PARAMS_FILE.read_bytes() != composed:  # and jobs may have read what stands there now
        raise UserError(
            f"{PARAMS_FILE} changed meanwhile, so {name!r} is not saved; run the same command again"
        )
    # 'exp save' records whatever lies here as the stages' results, and Snakemake succeeds at less
    # than everything, too (-n, a target, --until)
    with repository() as repo:
        left = repo.status()
    if left:
        raise UserError("not finished, so not saved; run the same command again, for all targets")
    # a new task's, method's or seed's are in neither git nor the cache
    reports = ("--include-untracked", "reports/metrics", "-I", "reports/summary.json")
    return _status("dvc", "exp", "save", "--name", name, *reports)


def _status(*command: str) -> int:
    return subprocess.run(command).returncode


def main(words: list[str]) -> int:
    """Run the variation that the command line describes, and return the exit status.

    Raises:
        UserError: see ``vary``.
    """
    return vary(*arguments(words))


def arguments(words: list[str]) -> tuple[str, list[str], list[str]]:
    """Return name, overrides and Snakemake's options of a command line."""
    end = words.index("--") if "--" in words else len(words)
    given = parser("vary", __doc__)
    given.usage = "%(prog)s NAME [override ...] [-- snakemake options]"
    given.add_argument("name", metavar="NAME", help="of the experiment")
    found = parse_with_overrides(given, words[:end])
    return found.name, found.overrides, words[end + 1 :]
