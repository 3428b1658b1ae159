"""Run a variation through Snakemake and keep it as an experiment of DVC.

The same as ``dvc exp run -n NAME -S override ...``, for trainings side by side or on a cluster:
composes params.yaml, runs snakemake, then ``dvc exp save``. A run that was stopped goes on with the
same command.
"""

import subprocess

from pipeline.commands import parser
from pipeline.config.compose import compose
from pipeline.config.params import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.workflow.one_snakemake import require_nobody_runs


def vary(name: str, overrides: list[str], options: list[str]) -> int:
    """Run one variation; return the exit status of the command that failed, or 0.

    Raises:
        UserError: the name is taken or not allowed, an override is wrong, Snakemake runs here
            already or left something to do, or the settings changed meanwhile.
    """
    listed = subprocess.run(
        ["dvc", "exp", "list", "--name-only"], check=True, capture_output=True, text=True
    )
    if name in listed.stdout.split():
        raise UserError(
            f"experiment {name!r} exists; choose another name or: dvc exp remove {name}"
        )
    if not name or name.startswith("-") or _status("git", "check-ref-format", f"refs/exps/{name}"):
        raise UserError(f"{name!r} cannot name an experiment: letters, digits, '-' and '_' can")
    require_nobody_runs()
    compose(overrides)
    composed = PARAMS_FILE.read_bytes()
    return _status("snakemake", *options) or _save(name, composed)


def _save(name: str, composed: bytes) -> int:
    from dvc.repo import Repo

    if PARAMS_FILE.read_bytes() != composed:  # and jobs may have read what stands there now
        raise UserError(
            f"{PARAMS_FILE} changed meanwhile, so {name!r} is not saved; run the same command again"
        )
    # 'exp save' records whatever lies here as the stages' results, and Snakemake succeeds at less
    # than everything, too (-n, a target, --until)
    if Repo().status():
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
    given.add_argument("overrides", nargs="*", metavar="override", help="in Hydra's grammar")
    found = given.parse_args(words[:end])
    return found.name, found.overrides, words[end + 1 :]
