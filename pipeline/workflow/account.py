"""Let programs start under an account without a name or a home, as containers and clusters have.

DVC and Snakemake ask for both before they read anything of the project, and fail without them. So
'make setup' runs this file by the Python of the environment, and leaves there a line that Python
runs at each start.

Usage: .venv/bin/python pipeline/workflow/account.py
"""

import sysconfig
from pathlib import Path

NAME = "account_without_name.pth"
"""File in the environment, of which Python runs lines that begin with 'import'."""
NO_HOME = "/nonexistent"
"""Debian's home of accounts that have none: nobody can write there."""
CODE = f"""
try:
    pwd.getpwuid(os.getuid())
except KeyError:
    if not os.path.isabs(os.environ.get("HOME", "")):
        os.environ["HOME"] = {NO_HOME!r}
    os.environ.setdefault("USER", str(os.getuid()))
"""


def install(folder: Path) -> None:
    """Leave the line in a folder of an environment's packages."""
    (folder / NAME).write_text(f"import os, pwd; exec({CODE!r})\n", encoding="utf-8")


if __name__ == "__main__":
    install(Path(sysconfig.get_path("purelib")))
