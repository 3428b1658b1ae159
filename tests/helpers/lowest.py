"""Print the lowest version of everything that pyproject.toml asks for, as pip reads it.

Usage: python tests/helpers/lowest.py
"""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def lowest(requirement: str) -> str:
    """Return ``name==1.2`` for ``name>=1.2,<3``; exact versions stay."""
    return re.sub(r"[>=]=([^,]+).*", r"==\1", requirement)


if __name__ == "__main__":
    for extra in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        print(*map(lowest, extra), sep="\n")
