"""What git says of the current folder."""

import subprocess

from pipeline.runtime.errors import UserError


def ask_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what a git command printed, whether it succeeded or not.

    Raises:
        UserError: there is no git.
    """
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise UserError("git: not found on PATH; install it") from None


def git(*arguments: str) -> str:
    """Return what git prints in the current folder, nothing where it fails or is not there."""
    try:
        done = ask_git(*arguments)
    except UserError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def no_clone() -> str | None:
    """Return why the current folder is no clone that git would work in, and what to do."""
    try:
        asked = ask_git("rev-parse", "--is-inside-work-tree")
    except UserError as error:
        return str(error)
    if asked.returncode == 0:
        return None
    if "dubious ownership" in asked.stderr:
        (remedy,) = (line.strip() for line in asked.stderr.splitlines() if "safe.directory" in line)
        return f"this clone belongs to another user, so git refuses it; if you trust it: {remedy}"
    if "not a git repository" in asked.stderr:
        return (
            "this folder is no git clone (a download without .git?); clone the project, or make it"
            " a repository: git init && git add . && git commit -m start"
        )
    return f"git cannot read this folder: {' '.join(asked.stderr.split())}"
