"""Two states of the project side by side: which settings differ, and what that did to the scores.

A and B are git revisions, DVC experiments, or 'workspace' for the files as they lie here. Their
tables of images come from DVC's cache, so nothing is checked out and nothing runs. FILE ends with
.md, .csv or .tex (the scores alone, but for .md); without it Markdown is printed.
"""

from pathlib import Path

from yaml import YAMLError

from pipeline.commands import parser
from pipeline.config.params import PARAMS_FILE
from pipeline.report.compare import FORMS, comparison
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.runtime.git import ask_git
from pipeline.workflow.project import require_project


def main(words: list[str]) -> int:
    """Print or write the comparison.

    Raises:
        UserError: see ``pipeline.report.compare``.
    """
    given = parser("compare", __doc__)
    given.add_argument("a", metavar="A")
    given.add_argument("b", metavar="B")
    given.add_argument("--out", type=Path, metavar="FILE")
    arguments = given.parse_args(words)
    if arguments.out is not None and arguments.out.suffix not in FORMS:
        raise UserError(
            f"--out: found {arguments.out}, expected a name ending with {', '.join(FORMS)}"
        )
    require_project(writes=False)
    for given_revision in (arguments.a, arguments.b):
        _require_commit(given_revision)
    try:
        form = arguments.out.suffix if arguments.out else ".md"
        text = comparison(arguments.a, arguments.b, form)
    except (YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{PARAMS_FILE} of {arguments.a} or {arguments.b}: not valid YAML ({reason}); mend it,"
            " or compare others"
        ) from None
    if arguments.out is None:
        print(text, end="")
    else:
        write_text(arguments.out, text)
    return 0


def _require_commit(revision: str) -> None:
    """Raise UserError for what git knows but is no commit, such as a file of one, or for nothing.

    Names of experiments are DVC's to find.
    """
    known = ask_git("rev-parse", "--verify", "--quiet", revision).returncode == 0
    commit = ask_git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").returncode == 0
    if not revision.strip() or (known and not commit):
        raise UserError(
            f"found {revision!r}, expected a commit, an experiment or 'workspace'; 'dvc exp list'"
            " and 'git log' name them"
        )
