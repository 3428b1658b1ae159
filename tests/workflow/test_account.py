"""An account without a name or a home, and what 'make setup' leaves in the environment for it."""

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.workflow.account import NAME, NO_HOME, install
from tests.helpers.nobody import NUMBER, as_nobody, require_nobody

SHOW = "import os; print(os.environ.get('HOME'), os.environ.get('USER'))"


@pytest.fixture(scope="module")
def places() -> Iterator[tuple[Path, Path]]:
    """An environment, and a spare folder; anybody may enter them, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        spare = Path(folder, "spare")
        spare.mkdir()
        Path(folder).chmod(0o755)
        require_nobody(spare)
        made = Path(folder, "environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
        subprocess.run(
            [str(made / "bin" / "python"), "pipeline/workflow/account.py"],
            cwd=Path(__file__).parents[2], check=True,
        )  # fmt: skip
        yield made, spare


@pytest.mark.parametrize(
    ("given", "named", "found"),
    [
        ([], False, f"{NO_HOME} {NUMBER}"),
        (["HOME=/tmp", "USER=me"], False, "/tmp me"),
        (["HOME="], False, f"{NO_HOME} {NUMBER}"),
        ([], True, "None None"),
    ],
)
def test_a_number_without_a_name_gets_both(
    places: tuple[Path, Path], given: list[str], named: bool, found: str
) -> None:
    made, spare = places
    python = str(made / "bin" / "python")
    done = as_nobody(made, spare, "env", *given, python, "-c", SHOW, named=named)
    assert done.stdout == f"{found}\n", done.stderr


def test_an_account_with_a_name_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    assert pwd.getpwuid(os.getuid())
    for name in ("HOME", "USER"):
        monkeypatch.delenv(name, raising=False)
    exec((tmp_path / NAME).read_text())
    assert "HOME" not in os.environ and "USER" not in os.environ
