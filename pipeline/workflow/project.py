"""What DVC, git and a command need of the folder here: said in one line, before any work."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.git import ask_git, no_clone

GRAPH_VARIABLE = "PIPELINE_GRAPH"
"""Environment variable: the graph as Snakemake found it at its start, for its jobs."""
OUTPUT_FOLDERS = ("data", "data/*", "reports", "reports/metrics")
"""Folders above outputs: none may be a link."""


def require_project(writes: bool = True) -> None:
    """Raise UserError unless this folder is the project's, in a clone, and may be written to."""
    if not Path("dvc.yaml").is_file():
        raise UserError(f"no dvc.yaml in {Path.cwd()}; run this in the folder of the project")
    if (reason := no_clone()) is not None:
        raise UserError(reason)
    if writes and not os.access(".", os.W_OK):
        raise UserError(
            f"{Path.cwd()}: cannot be written to (read-only, or another user's); work in a clone"
            " of your own"
        )


def require_identity() -> None:
    """Raise UserError where git does not know in whose name to commit."""
    if ask_git("var", "GIT_COMMITTER_IDENT").returncode:
        raise UserError(
            "git does not know who you are, and an experiment is a commit:"
            " git config user.name 'Your Name' && git config user.email you@example.org"
        )


def require_plain_folders() -> None:
    """Raise UserError where a folder above outputs is a link: DVC refuses what lies below."""
    for pattern in OUTPUT_FOLDERS:
        for path in Path().glob(pattern):
            if path.is_symlink():
                raise UserError(
                    f"{path}: is a symbolic link, below which DVC takes no results; make it a"
                    " folder, and put the cache on the other disk: docs/sharing.md#disks"
                )


@contextmanager
def repository(writes: bool = True, **options: Any) -> Iterator[Any]:
    """Open the project as ``dvc.repo.Repo`` for a block, in which DVC's errors become a line.

    Raises:
        UserError: this is no clone, or DVC or its database fails.
    """
    require_project(writes)
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        yield Repo(**options)
    except DvcException as error:
        raise UserError(f"DVC: {' '.join(str(error).split())}") from None
    except sqlite3.Error as error:
        raise UserError(
            f"DVC's database ({error}): free disk space, or let it lie where it can be written to:"
            " export DVC_SITE_CACHE_DIR=FOLDER"
        ) from None
