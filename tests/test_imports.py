"""Imports between the folders go one way; no folder knows a command; a name is one class."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pipeline"
STEPS = (
    ("runtime", "device", "randomness"),
    ("config",),
    ("images", "workflow", "models"),
    ("sources", "degradations", "evaluation", "inference"),
    ("datasets",),
    ("report", "methods"),
    ("training",),
    ("dry_run",),
    ("commands",),
    ("__main__",),
)
"""What stands on a later step may import what stands on an earlier one, and never the reverse."""

LEVEL = {folder: level for level, step in enumerate(STEPS) for folder in step}


def imported(file: Path) -> Iterator[str]:
    """Yield the folders, or lone modules, of the package that a file imports anywhere."""
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == PACKAGE.name and len(parts) > 1:
                yield parts[1]


def folder_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_folder_has_its_step() -> None:
    found = {folder_of(file) for file in PACKAGE.rglob("*.py")} - {"__init__"}
    assert found == set(LEVEL)


@pytest.mark.parametrize("folder", sorted(LEVEL))
def test_imports_only_go_to_earlier_steps(folder: str) -> None:
    files = [*(PACKAGE / folder).rglob("*.py"), *PACKAGE.glob(f"{folder}.py")]
    against = [
        f"{file.relative_to(PACKAGE)} imports {other}"
        for file in files
        for other in imported(file)
        if other in LEVEL and other != folder and LEVEL[other] >= LEVEL[folder]
    ]
    assert not against, "\n".join(against)


def test_no_two_classes_have_one_name() -> None:
    names = Counter(
        node.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
