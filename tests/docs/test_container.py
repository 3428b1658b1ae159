"""The Dockerfile, checked as far as it can be without a daemon."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
STEPS = [
    (match[1], " ".join(match[2].split())) for match in re.finditer(r"^([A-Z]+) (.+)$", TEXT, re.M)
]


def steps(word: str) -> list[str]:
    return [rest for found, rest in STEPS if found == word]


def test_it_begins_with_an_image_and_has_only_known_steps() -> None:
    assert STEPS[0][0] == "FROM"
    assert {word for word, _ in STEPS} <= {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "CMD"}


def test_its_python_is_one_that_the_project_allows() -> None:
    (image,) = steps("FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", image)
    assert version, image
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"{version[1]}.0" in SpecifierSet(project["requires-python"])


def test_it_installs_the_lock_and_sends_nothing_else() -> None:
    (copied,) = steps("COPY")
    source, target = copied.split()
    assert (ROOT / source).is_file()
    assert any(f"pip install --no-cache-dir --requirement {target}" in run for run in steps("RUN"))
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert [line for line in ignored if line and not line.startswith("#")] == ["*", f"!{source}"]


def test_its_shell_lines_are_valid_shell(tmp_path: Path) -> None:
    for number, line in enumerate(steps("RUN")):
        script = tmp_path / f"{number}.sh"
        script.write_text(line)
        done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_debian_has_what_it_installs() -> None:
    if shutil.which("apt-cache") is None:
        pytest.skip("no apt-cache")
    (found,) = (run for run in steps("RUN") if "apt-get install" in run)
    names = re.search(r"--no-install-recommends ([\w -]+?) &&", found)
    assert names
    for name in names[1].split():
        shown = subprocess.run(["apt-cache", "show", name], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr


def test_what_its_environment_names_lies_in_the_checkout() -> None:
    """With these the commands write nothing outside, even for a user without a home."""
    (line,) = steps("ENV")
    values = dict(word.split("=") for word in line.split())
    folders = {name: value for name, value in values.items() if value.startswith("/")}
    assert {"HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "DVC_SITE_CACHE_DIR"} == folders.keys()
    (work,) = steps("WORKDIR")
    assert all(value.startswith(f"{work}/.cache") for value in folders.values())
    assert values["USER"], "DVC fails without, where the user's number has no name"


def test_its_command_lists_the_commands() -> None:
    (command,) = steps("CMD")
    words = re.findall(r'"([^"]+)"', command)
    assert words[0] == "python"
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "restore" in done.stdout
