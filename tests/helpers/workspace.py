"""A copy of the project as a git repository of its own, in which a test may run everything."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from tests.helpers import preloaded

ROOT = Path(__file__).parents[2]
PATIENCE_S = 1200
"""A command that takes longer hangs."""


def copy_tree(folder: Path) -> None:
    """Copy the working tree, as git sees it."""
    listed = _git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def make_origin(folder: Path) -> Path:
    """Make a new repository of it with one commit and preset=tiny."""
    copy_tree(folder)
    # what a run on another machine left in git must not decide what runs here
    (folder / "dvc.lock").unlink(missing_ok=True)
    for left in ("reports", "data"):
        shutil.rmtree(folder / left, ignore_errors=True)
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _run_in(folder, ["python", "-m", "pipeline", "compose", "preset=tiny"])
    _commit(folder, "the project with preset=tiny")
    return folder


def make_one_task_origin(folder: Path) -> Path:
    """The same, whose defaults are one task, trained long enough to be stopped and retried once."""
    make_origin(folder)
    for name, old, new in (
        ("pipeline/conf/config.yaml", "tasks: [denoise, derain, deblur]", "tasks: [denoise]"),
        ("pipeline/conf/config.yaml", "preset: demo", "preset: tiny"),
        ("pipeline/conf/preset/tiny.yaml", "steps: 8", "steps: 30"),
        ("pipeline/conf/preset/tiny.yaml", "pretrain_steps: 4", "pretrain_steps: 20"),
        ("dvc.yaml", "retries: 3", "retries: 1"),
    ):
        path = folder / name
        text = path.read_text()
        assert old in text, f"{name}: no {old!r}"
        path.write_text(text.replace(old, new, 1))
    _run_in(folder, ["python", "-m", "pipeline", "compose"])
    _commit(folder, "one task")
    return folder


def clone(origin: Path, folder: Path) -> "Workspace":
    """Return a fresh clone."""
    _git(origin.parent, "clone", "--quiet", str(origin), str(folder))
    return Workspace(folder)


def copy(workspace: "Workspace", folder: Path) -> "Workspace":
    """Return a copy with everything: data, marks, and the cache, whose objects are shared."""

    def link_objects(source: str, target: str) -> None:
        (os.link if "/.dvc/cache/files/" in source else shutil.copy2)(source, target)

    shutil.copytree(workspace.folder, folder, symlinks=True, copy_function=link_objects)
    return Workspace(folder)


class Workspace:
    """Commands in a clone, with this Python first on the path as an activated venv has it.

    What runs to its end runs preloaded; what is killed or meddled with is all it would be.
    """

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

    def meddle(self, act: Callable[[int], bool], *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; until it returns True call ``act(its process number)``."""
        log = self.folder.parent / f"{self.folder.name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment(), stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
            try:
                while not act(process.pid):
                    assert process.poll() is None, f"over too early: {log.read_text()[-3000:]}"
                    time.sleep(0.005)
                status = process.wait(timeout=PATIENCE_S)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, status, log.read_text())

    def saved_trainings(self) -> list[int]:
        """Return the processes of trainings that run and have saved themselves."""
        found = []
        for state in (self.folder / ".checkpoints").glob("*/state.safetensors"):
            try:
                number = (state.parent / "lock").read_text().partition(" ")[0]
            except FileNotFoundError:  # finished just now
                continue
            if number and processes().get(int(number)) == str(self.folder):
                found.append(int(number))
        return found

    def saved_training(self) -> int | None:
        """Return one of them."""
        return next(iter(self.saved_trainings()), None)

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


def processes() -> dict[int, str]:
    """Return the working folder of every process by its number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            found[int(path.name)] = str((path / "cwd").readlink())
        except OSError:  # ended, or another user's
            continue
    return found


def command_of(process: int) -> str:
    """Return the words of a process's command, or nothing if it has ended."""
    try:
        return Path("/proc", str(process), "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def recipe(page: str, start: str, changes: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """Return the one command of a page of docs that begins so, with some words changed."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    found = {line.strip() for line in lines if f"{line}\n".startswith(f"    {start}")}
    assert found, f"{page}: no {start!r}"
    (command,) = {line.partition("  #")[0].strip() for line in found}
    for old, new in changes.items():
        assert old in command
        command = command.replace(old, new)
    return ["sh", "-c", command]


def stages_run(output: str) -> set[str]:
    """Return the names of the stages that DVC says it ran."""
    return set(re.findall(r"^Running stage '(.+)':", output, re.MULTILINE))


def environment(folder: Path = Path(sys.executable).parent) -> dict[str, str]:
    """Return the environment with a folder first on the path, this Python's if none is named."""
    values = dict(os.environ)
    values["PATH"] = f"{folder}{os.pathsep}{values['PATH']}"
    for person in ("GIT_AUTHOR", "GIT_COMMITTER"):
        values |= {f"{person}_NAME": "test", f"{person}_EMAIL": "test@localhost"}
    values.pop("PIPELINE_CHECKPOINTS", None)
    return values


def _run_in(
    folder: Path, command: list[str], check: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(preloaded.bin()), check=check,
        capture_output=True, text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip


def _git(folder: Path, *arguments: str) -> str:
    return _run_in(folder, ["git", *arguments]).stdout


def _commit(folder: Path, message: str) -> None:
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", message)
