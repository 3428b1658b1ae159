"""The script that brings programs of Debian for some tests: with commands that only pretend."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.browser import NAMES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "helpers" / "debian.sh"
USED = ("bash", "timeout")


def run(folder: Path, wanted: str, **commands: str) -> tuple[int, str, list[str]]:
    """Run it where only these commands are; return status, errors, and how apt-get was called."""
    for name in USED:
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, does in {"id": "echo 0", **commands}.items():
        stub = folder / name.replace("_", "-")
        stub.write_text(f'#!{folder}/bash\necho "$@" >> {folder}/called-{stub.name}\n{does}\n')
        stub.chmod(0o755)
    command = [folder / "bash", SCRIPT, wanted]
    done = subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True)
    log = folder / "called-apt-get"
    return done.returncode, done.stderr, log.read_text().splitlines() if log.is_file() else []


@pytest.mark.parametrize("wanted", ["chromium", "debootstrap"])
def test_it_installs_what_is_not_there(tmp_path: Path, wanted: str) -> None:
    status, told, calls = run(tmp_path, wanted, apt_get="exit 0")
    assert (status, told) == (0, "")
    update, install = calls
    assert update.endswith("update")
    assert "--yes" in install and f" {wanted}" in install


@pytest.mark.parametrize(
    ("name", "wanted"), [*((name, "chromium") for name in NAMES), ("debootstrap",) * 2]
)
def test_one_that_is_there_is_left_alone(tmp_path: Path, name: str, wanted: str) -> None:
    program = tmp_path / name
    program.write_text("")
    program.chmod(0o755)
    assert run(tmp_path, wanted, apt_get="exit 1") == (0, "", [])


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ({"id": "echo 1000", "apt_get": "exit 0"}, "installing it needs root"),
        ({}, "no apt-get here"),
        ({"apt_get": '[ "${!#}" != update ]'}, "apt-get update failed"),
        ({"apt_get": '[ "${!#}" = update ]'}, "apt-get install failed"),
    ],
    ids=["no root", "no apt", "no network", "no package"],
)
def test_where_it_cannot_be_had_the_reason_is_one_line(
    tmp_path: Path, commands: dict[str, str], reason: str
) -> None:
    status, told, _ = run(tmp_path, "chromium", **commands)
    assert status == 2
    assert told == f"error: no chromium for the tests: {reason}\n"


def test_another_name_is_refused(tmp_path: Path) -> None:
    status, told, calls = run(tmp_path, "firefox", apt_get="exit 0")
    assert (status, calls) == (2, [])
    assert told == "error: found 'firefox', expected chromium or debootstrap\n"


def test_neither_the_build_nor_the_tests_depend_on_it() -> None:
    makefile = (ROOT / "Makefile").read_text()
    lines = [line for line in makefile.splitlines() if "tests/helpers/debian.sh" in line]
    assert lines and all("|| true" in line for line in lines)
    test = makefile.partition("\ntest: ")[2].partition("\n\n")[0]
    assert "debian.sh" not in test, "'make test' needs no root"
