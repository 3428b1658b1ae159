"""A copy of the project as a git repository of its own, in which a test may run everything."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def make_origin(folder: Path) -> Path:
    """Copy the working tree, as git sees it, into a new repository with one commit."""
    listed = _git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    # what a run on another machine left in git must not decide what runs here
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "reports", ignore_errors=True)
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _run_in(folder, ["python", "-m", "pipeline.compose", "preset=tiny"])
    _commit(folder, "the project with preset=tiny")
    return folder


def clone(origin: Path, folder: Path) -> "Workspace":
    """Return a fresh clone."""
    _git(origin.parent, "clone", "--quiet", str(origin), str(folder))
    return Workspace(folder)


class Workspace:
    """Commands in a clone, with this Python first on the path as an activated venv has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return _run_in(self.folder, list(command), check=False)

    def succeed(self, *command: str) -> str:
        """Run a command that must succeed; return what it printed."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def kill_when(
        self, ready: Callable[[str], bool], *command: str, with_children: bool = True
    ) -> str:
        """Run a command; SIGKILL it, and what it started, once ``ready(output so far)``."""
        log = self.folder.parent / f"{self.folder.name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment(), stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
            while process.poll() is None:
                if ready(log.read_text()):
                    (os.killpg if with_children else os.kill)(process.pid, signal.SIGKILL)
                    process.wait()
                    break
                time.sleep(0.005)
        return log.read_text()

    def commit(self, message: str) -> None:
        """Commit everything."""
        _commit(self.folder, message)

    def hashes(self) -> dict[str, str]:
        """Return the hash of every output in dvc.lock."""
        lock = yaml.safe_load((self.folder / "dvc.lock").read_text())
        return {
            out["path"]: out["md5"]
            for stage in lock["stages"].values()
            for out in stage.get("outs", [])
        }


def stages_run(output: str) -> set[str]:
    """Return the names of the stages that DVC says it ran."""
    return set(re.findall(r"^Running stage '(.+)':", output, re.MULTILINE))


def environment() -> dict[str, str]:
    """Return the environment with this Python's folder first on the path."""
    values = dict(os.environ)
    values["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{values['PATH']}"
    for person in ("GIT_AUTHOR", "GIT_COMMITTER"):
        values |= {f"{person}_NAME": "test", f"{person}_EMAIL": "test@localhost"}
    values.pop("PIPELINE_CHECKPOINTS", None)
    return values


def _run_in(
    folder: Path, command: list[str], check: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(), check=check, capture_output=True, text=True
    )


def _git(folder: Path, *arguments: str) -> str:
    return _run_in(folder, ["git", *arguments]).stdout


def _commit(folder: Path, message: str) -> None:
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", message)
