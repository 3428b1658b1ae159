"""Compose ``pipeline/conf`` into params.yaml, byte for byte as ``dvc exp run`` does.

What was in params.yaml before is replaced, edits by hand too; the settings that change are printed.
"""

import tempfile
from pathlib import Path

from pipeline.commands import parse_with_overrides, parser
from pipeline.config.compose import changes, compose
from pipeline.config.params import PARAMS_FILE
from pipeline.workflow.one_snakemake import require_nobody_runs


def main(words: list[str]) -> int:
    """Write params.yaml, or print what would change.

    Raises:
        UserError: see ``pipeline.config.compose``; or Snakemake runs here.
    """
    given = parser("compose", __doc__)
    given.add_argument("--diff", action="store_true", help="print what would change, write nothing")
    arguments = parse_with_overrides(given, words)
    if not arguments.diff:
        require_nobody_runs()
    with tempfile.TemporaryDirectory() as folder:
        composed = Path(folder) / PARAMS_FILE.name
        compose(arguments.overrides, composed)
        changed = changes(PARAMS_FILE, composed)
    if not arguments.diff:  # before anything is printed, which may fail
        compose(arguments.overrides)
    for line in changed:
        print(line)
    return 0
