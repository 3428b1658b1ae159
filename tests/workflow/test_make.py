"""``make setup``: when it makes the environment, what it never touches, odd names of folders."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
echo "$@" >> {log}
test "$1" = -c && echo {version}
if test "$2" = venv; then
    for folder; do :; done
    mkdir -p "$folder/bin" && touch "$folder/pyvenv.cfg"
    printf '#!/bin/sh\\nexit 0\\n' | tee "$folder/bin/distro" > "$folder/bin/python"
    chmod +x "$folder/bin/distro" "$folder/bin/python"
fi
exit 0
"""


@pytest.fixture(params=["plain", "a b", "d'é", "x%y", "#1"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with the Makefile, and a Python that notes what it is asked for."""
    folder = tmp_path / request.param
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    account = Path("pipeline/workflow/account.py")
    (folder / account.parent).mkdir(parents=True)
    shutil.copy(ROOT / account, folder / account)
    (folder / "requirements.lock").touch()
    (folder / "requirements-test.lock").touch()
    write_python(tmp_path, "3.11")
    return folder


def write_python(place: Path, version: str) -> None:
    (place / "python").write_text(PYTHON.format(log=place / "log", version=version))
    (place / "python").chmod(0o755)


def make(project: Path, target: str = "setup") -> tuple[int, str, list[str]]:
    """Return status, what was printed, and what Python was asked for."""
    log = project.parent / "log"
    log.write_text("")
    done = subprocess.run(
        ["make", target, f"PYTHON={project.parent / 'python'}", "UV="],
        cwd=project, capture_output=True, text=True,
    )  # fmt: skip
    asked = [line for line in log.read_text().splitlines() if line.startswith("-m venv")]
    return done.returncode, done.stdout + done.stderr, asked


def test_it_is_made_once(project: Path) -> None:
    assert make(project)[::2] == (0, ["-m venv .venv"])
    assert make(project) == (0, "", [])


def test_one_that_was_moved_is_made_anew(project: Path) -> None:
    make(project)
    (project / ".venv" / "bin" / "distro").write_text("#!/nowhere/.venv/bin/python\n")
    assert make(project)[::2] == (0, ["-m venv .venv"])
    assert make(project)[::2] == (0, [])


def test_one_that_fails_for_another_reason_stays(project: Path) -> None:
    """Too little memory, a full disk: it was not moved."""
    make(project)
    (project / ".venv" / "mine.txt").touch()
    (project / ".venv" / "bin" / "distro").write_text("#!/bin/sh\nexit 1\n")
    assert make(project)[2] == [] and (project / ".venv" / "mine.txt").exists()


def test_another_lock_is_installed_beside_what_is_there(project: Path) -> None:
    make(project)
    ready = (project / ".venv" / ".ready").stat().st_mtime
    (project / "requirements.lock").write_text("more")
    os.utime(project / "requirements.lock", (ready + 5, ready + 5))
    status, told, asked = make(project)
    assert (status, asked) == (0, []) and "installs requirements.lock" in told


def test_those_of_others_are_never_touched(project: Path) -> None:
    make(project)
    shutil.move(project / ".venv", project.parent / "theirs")
    (project.parent / "theirs" / "mine.txt").touch()
    (project / ".venv").symlink_to(project.parent / "theirs")
    assert make(project) == (0, "", []), "a link to one that works is used"
    os.utime(project / "requirements.lock", (2**31, 2**31))
    assert make(project) == (0, "", []), "and not brought up to date"
    assert make(project, "setup-tests") == (0, "", []), "nor given what tests need"
    (project.parent / "theirs" / "bin" / "distro").unlink()
    status, told, asked = make(project)
    assert status == 2 and not asked
    assert "error: .venv: found no environment that works, nor one made here; move it away" in told
    (project / ".venv").unlink()
    (project / ".venv").mkdir()
    (project / ".venv" / "mine.txt").touch()
    assert make(project)[0] == 2
    assert (project / ".venv" / "mine.txt").exists()
    assert (project.parent / "theirs" / "mine.txt").exists()


def test_another_python_is_named(project: Path) -> None:
    write_python(project.parent, "3.10")
    status, told, asked = make(project)
    assert status == 2 and not asked and not (project / ".venv").exists()
    assert "(3.10), expected one of python3.13 python3.12 python3.11 with venv; install one" in told


def test_links_in_place_of_folders_are_ignored_by_git(tmp_path: Path) -> None:
    """On another disk, as people have large ones."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    (tmp_path / ".git" / "elsewhere").mkdir()
    for name in (".checkpoints", ".cache", "logs", ".snakemake", ".venv", "downloads"):
        (tmp_path / name).symlink_to(tmp_path / ".git" / "elsewhere")
    for name in ("dvc.lock.damaged", "dvc.lock.damaged.2"):
        (tmp_path / name).touch()
    (tmp_path / "dvc_plots").mkdir()
    (tmp_path / "dvc_plots" / "index.html").touch()
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert told.splitlines() == ["A  .gitignore"]


def test_what_is_no_clone_is_told_before_the_installation(project: Path) -> None:
    status, told, asked = make(project, "reproduce")
    assert status == 2 and not asked and not (project / ".venv").exists()
    assert "error: git does not work in this folder, found no clone of yours; clone" in told
